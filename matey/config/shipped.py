"""What comes with the program beside its modules: scripts, configurations and a model, in a checkout or as installed.

    a checkout                          as installed from a wheel, see setup.py
    launch/ tools/ ds_configs/ models/  matey/shipped/launch/ tools/ ds_configs/ models/

Names of configurations are those of their files: ``demo`` is launch/runs/demo.yaml, ``zero1`` is ds_configs/zero1.json.
"""

from __future__ import annotations

import os
from pathlib import Path

from matey.mistakes import nearest_name

_PACKAGE = Path(__file__).resolve().parents[1]
FOLDERS = ("launch", "tools", "ds_configs", "models")
KINDS = {"launch/runs": ".yaml", "ds_configs": ".json"}
"""Folders of configurations and the suffix of those in each: runs, and engines of DeepSpeed."""


def is_installed() -> bool:
    """Whether the package was installed from a wheel, and does not lie in a checkout."""
    return (_PACKAGE / "shipped").is_dir()


ROOT = _PACKAGE / "shipped" if is_installed() else _PACKAGE.parent
"""The folder that holds `FOLDERS`: the repository's root in a checkout."""


def configurations(folder: str) -> dict[str, Path]:
    """Return the configurations of a kind by name, see `KINDS`."""
    return {path.stem: path for path in sorted((ROOT / folder).glob(f"*{KINDS[folder]}"))}


def find(path: str | Path) -> Path:
    """Return a path if something is there; else what comes with the program under that name, if anything does.

    Args:
        path: a path; or a name, such as ``demo`` or ``zero1.json``; or a path from the root of the repository, such as
            ``launch/runs/demo.yaml`` or ``models/matey-micro``.
    """
    path = Path(path)
    # Names too long for a file, or with null bytes in them, are no names of ours: os.path says so, pathlib raises.
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
    """Return `` Did you mean 'x'?`` for a configuration that comes with the program and is called almost as one not there."""
    name = Path(path)
    if len(name.parts) != 1 and name.parent.as_posix() not in KINDS:
        return ""
    return nearest_name(name.stem, [known for folder in KINDS for known in configurations(folder)])
