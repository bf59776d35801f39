"""Paths on other machines, such as ``https://host/data.h5`` and ``s3://bucket/set.zarr``, which can stand for any path."""

from __future__ import annotations

import fnmatch
import glob
import io
import os
import stat
from collections.abc import Generator
from pathlib import Path, PosixPath
from typing import Any

from matey.config import DataSection
from matey.data.remote.cache import RemoteFile, name_of
from matey.data.remote.server import about, existing, listing


def place(path: str | Path) -> Path:
    """Return a user's path, which is remote if it names a protocol."""
    text = str(path)
    return RemotePath(text) if "://" in text and not text.startswith("file://") else Path(text.removeprefix("file://"))


def within(folder: Path, path: str | Path) -> Path:
    """Return a user's path, which starts from a folder."""
    named = place(path).expanduser()
    return named if isinstance(named, RemotePath) else folder / named


def rooted(data: DataSection, root: Path) -> DataSection:
    """Return a run's data section with full paths; those in ``data`` start from ``root``."""
    sets = (entry.model_copy(update={"path": str(within(root, entry.path))}) for entry in data.sets)
    return data.model_copy(update={"sets": tuple(sets)})


def seen_from(folder: Path, path: Path) -> str:
    """Return a path relative to a folder; a remote one stays whole."""
    return str(path) if isinstance(path, RemotePath) else os.path.relpath(path.absolute(), folder.absolute())


def matches(pattern: Path) -> list[Path]:
    """Return the paths that a glob matches, on this machine or another, sorted."""
    if isinstance(pattern, RemotePath):
        return sorted(map(RemotePath, listing(str(pattern), "glob")))
    return [Path(match) for match in sorted(glob.glob(str(pattern), recursive=True))]


def would_match(pattern: Path, file: Path) -> bool:
    """Whether a path, folder or glob would stand for a future file; both are absolute."""
    parts = (file, *file.parents)
    if "**" in pattern.parts:  # stands for no folder or several
        return any(fnmatch.fnmatch(str(part), str(pattern).replace("**/", "*")) for part in parts)
    return any(part == pattern or part.match(str(pattern)) for part in parts)


class RemotePath(PosixPath):
    """A path on another machine, as far as readers need one."""

    def __str__(self) -> str:
        """Return the address with two slashes after the protocol, which paths merge into one."""
        return super().__str__().replace(":/", "://", 1)

    @property
    def parent(self) -> RemotePath:
        """Return the folder above; a host or bucket is its own parent."""
        return self if len(self.parts) < 3 else super().parent

    def absolute(self) -> RemotePath:
        """Return the path itself, which is absolute."""
        return self

    def resolve(self, strict: bool = False) -> RemotePath:
        """Return the path itself: links are not known."""
        return self

    def expanduser(self) -> RemotePath:
        """Return the path itself: it names no home folder."""
        return self

    def exists(self, *, follow_symlinks: bool = True) -> bool:
        """Whether anything is there."""
        return about(str(self)) is not None

    def is_file(self, *, follow_symlinks: bool = True) -> bool:
        """Whether it is a file."""
        found = about(str(self))
        return found is not None and not found.is_folder

    def is_dir(self, *, follow_symlinks: bool = True) -> bool:
        """Whether it is a folder."""
        found = about(str(self))
        return found is not None and found.is_folder

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        """Return the size and, as modification time, a number that differs between versions of the file."""
        found = existing(str(self))
        kind = stat.S_IFDIR if found.is_folder else stat.S_IFREG
        number, version = (int(name_of(text)[:15], 16) for text in (str(self), found.version))
        return os.stat_result((kind, number, 0, 1, 0, 0, found.size, 0, 0, 0), {"st_mtime_ns": version})

    def open(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        """Open the file to read bytes, whatever the mode."""
        return io.BufferedReader(RemoteFile(str(self)))

    def iterdir(self) -> Generator[RemotePath, None, None]:
        """Yield the members of a folder."""
        yield from map(RemotePath, listing(str(self), "ls"))

    def rglob(self, pattern: str) -> Generator[RemotePath, None, None]:
        """Yield all files and folders in a folder, whatever the pattern."""
        yield from map(RemotePath, listing(str(self), "find", withdirs=True))
