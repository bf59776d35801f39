"""Writes files that a crash cannot leave half written, and removes folders: content reaches the disk before the name does."""

from __future__ import annotations

import os
import shutil
import sys
from itertools import count
from pathlib import Path

from tqdm import tqdm


def replace_text(path: Path, text: str) -> None:
    """Write a file such that a reader, also after a crash, finds either the old text or the new one, whole."""
    replace_bytes(path, text.encode("utf-8"))


def replace_bytes(path: Path, content: bytes) -> None:
    """Write a file such that a reader, also after a crash, finds either the old content or the new one, whole."""
    new = path.with_name(f"{path.name}.{os.getpid()}.new")  # another process may be writing the same file
    try:
        with new.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except OSError:  # such as a full disk, which should not keep half a file
        new.unlink(missing_ok=True)
        raise
    _flush_folder(path.parent)


def flush(folder: Path) -> None:
    """Flush a folder, and all files in it, to the disk."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        elif path.is_dir():
            _flush_folder(path)
    _flush_folder(folder)
    _flush_folder(folder.parent)


def _flush_folder(folder: Path) -> None:
    """Flush the names in a folder to the disk."""
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def free_name(path: Path) -> Path:
    """Return the path of a file or folder with the first unused number behind it, such as ``runs/x.1``."""
    names = (path.with_name(f"{path.name}.{number}") for number in count(1))
    return next(name for name in names if not os.path.lexists(name))


def still_there(new: Path) -> str | None:
    """Remove what an interrupted attempt left in the place of a new folder; return a sentence if that fails."""
    shutil.rmtree(new, ignore_errors=True)
    if not os.path.lexists(new):
        return None
    return f"{new} was left by a save that was cut off, and cannot be removed; remove it, and go on with --resume."


def remove_if_it_goes(folder: Path, stuck: set[Path]) -> None:
    """Remove a folder that is no longer needed; one that cannot be removed only costs disk space and does not stop the run.

    Args:
        folder: the folder.
        stuck: folders already reported as not removable; this one is added if it cannot be removed.
    """
    try:
        shutil.rmtree(folder)
    except OSError as error:
        if folder not in stuck:
            tqdm.write(f"{folder} is no longer needed and cannot be removed ({error.strerror}); it stays.", sys.stderr)
        stuck.add(folder)
