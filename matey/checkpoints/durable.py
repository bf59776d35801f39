"""Writes files that a crash cannot leave half written, and removes folders: content reaches the disk before the name does."""

from __future__ import annotations

import os
import re
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
    flush_names(path.parent)


def flush(folder: Path) -> None:
    """Flush a folder, and all files in it, to the disk, and give safetensors files the usual mode."""
    for path in folder.rglob("*"):
        if path.is_file():
            _flush_file(path)
        elif path.is_dir():
            flush_names(path)
    flush_names(folder)
    flush_names(folder.parent)


def flush_shards(folder: Path, rank: int) -> None:
    """Do as `flush` does with the files of a checkpoint that a rank wrote; what others still write there comes and goes."""
    for path in folder.iterdir():
        number = re.search(r"rank_(\d+)", path.name)  # the rank's, and of DeepSpeed's two numbers the first
        if number and int(number[1]) == rank:
            _flush_file(path)


def _flush_file(path: Path) -> None:
    with path.open("rb") as file:
        if path.suffix == ".safetensors":  # only their owner could read them, whatever the process's umask says
            mask = os.umask(0)
            os.umask(mask)
            os.chmod(file.fileno(), 0o666 & ~mask)
        os.fsync(file.fileno())


def flush_names(folder: Path) -> None:
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
    sentence = f"{new} was left by a save that was cut off, and cannot be removed; remove it, and go on with --resume."
    return sentence if os.path.lexists(new) else None


def remove_if_it_goes(folder: Path) -> None:
    """Remove a folder that is no longer needed; one that cannot be removed only costs disk space and does not stop the run."""
    try:
        shutil.rmtree(folder)
    except OSError as error:
        tqdm.write(f"{folder} is no longer needed and cannot be removed ({error.strerror}); it stays.", sys.stderr)
