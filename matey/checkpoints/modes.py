"""Sets who may read saved files: safetensors lets only the owner read them, whatever the process's umask says."""

from __future__ import annotations

import os
from pathlib import Path


def give_usual_modes(folder: Path) -> None:
    """Give the safetensors files of a folder the process's usual file mode, so that a group's members can read its runs."""
    mask = os.umask(0)
    os.umask(mask)
    for path in folder.rglob("*.safetensors"):
        path.chmod(0o666 & ~mask)
