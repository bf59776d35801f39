"""Finds the files that come with the program beside its modules: scripts, configurations and a model.

    a checkout                          as installed from a wheel, see setup.py
    launch/ tools/ ds_configs/ models/  matey/shipped/launch/ tools/ ds_configs/ models/

A configuration is named after its file: ``demo`` is launch/runs/demo.yaml, ``zero1`` is ds_configs/zero1.json.
"""

from __future__ import annotations

import os
from pathlib import Path

from matey.mistakes import nearest_name

_PACKAGE = Path(__file__).resolve().parents[1]
FOLDERS = ("launch", "tools", "ds_configs", "models")
KINDS = {"launch/runs": ".yaml", "ds_configs": ".json"}
"""Folders of configurations, of runs and of DeepSpeed's engine, and the suffix of their files."""


def is_installed() -> bool:
    """Whether the package was installed from a wheel, and is not in a checkout."""
    return (_PACKAGE / "shipped").is_dir()


ROOT = _PACKAGE / "shipped" if is_installed() else _PACKAGE.parent
"""The folder that holds `FOLDERS`: the repository's root in a checkout."""


def configurations(folder: str) -> dict[str, Path]:
    """Return the configurations of a kind by name, see `KINDS`."""
    return {path.stem: path for path in sorted((ROOT / folder).glob(f"*{KINDS[folder]}"))}


def find(path: str | Path) -> Path:
    """Return a path if it exists, else the file or folder of that name that comes with the program, else the path.

    Args:
        path: a path; or a name, such as ``demo`` or ``zero1.json``; or a path from the root of the repository, such as
            ``launch/runs/demo.yaml`` or ``models/matey-micro``.
    """
    path = Path(path)
    # For names that are too long or hold null bytes, os.path returns False where pathlib raises.
    if path.is_absolute() or os.path.exists(path) or ".." in path.parts or not path.parts:
        return path
    if path.parts[0] in FOLDERS and os.path.exists(ROOT / path):
        return ROOT / path
    if len(path.parts) == 1:
        for folder, suffix in KINDS.items():
            found = ROOT / folder / f"{path.name.removesuffix(suffix)}{suffix}"
            if os.path.isfile(found):
                return found
        if os.path.isdir(ROOT / "models" / path):
            return ROOT / "models" / path
    return path


def hint(path: str | Path) -> str:
    """Return `` Did you mean 'x'?`` if a missing path resembles the name of a configuration that comes with the program."""
    name = Path(path)
    if len(name.parts) != 1 and name.parent.as_posix() not in KINDS:
        return ""
    return nearest_name(name.stem, [known for folder in KINDS for known in configurations(folder)])
