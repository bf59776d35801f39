"""Reads the file that makes a folder a scaling study; needs no PyTorch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from matey.config import ConfigError
from matey.studies.folder import STUDY


def read_study(folder: Path) -> dict[str, Any]:
    """Return the contents of the file, see `matey.studies.scaling.study.Study`.

    Raises:
        ConfigError: there is none in this folder.
    """
    try:
        tree: dict[str, Any] = json.loads((folder / STUDY).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            f"{folder} holds no study; make one with `tools/scaling_study.py plan --out {folder}`."
        ) from None
    return tree
