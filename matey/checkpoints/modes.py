"""Who may read what was saved: safetensors keeps its files to their owner, whatever the process's umask says."""

from __future__ import annotations

import os
from pathlib import Path


def give_usual_modes(folder: Path) -> None:
    """Give the safetensors files of a folder the mode of files that this process makes: a group's members evaluate its runs."""
    mask = os.umask(0)
    os.umask(mask)
    for path in folder.rglob("*.safetensors"):
        path.chmod(0o666 & ~mask)
