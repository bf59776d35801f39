"""Keeps the HDF5 files that a process reads open from one read to the next, and opens those anew that were replaced.

A handle belongs to the process that opened it: a forked child inherits descriptors and the state of the HDF5 library, so it
drops these and opens anew.
"""

from __future__ import annotations

import os
import resource
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import h5py

# HDF5 takes 0.5 MiB of memory for every file that is open, and so 1 GiB for these.
_MAX_OPEN_FILES = 2048

_Version = tuple[int, int, int, int]


class Handles:
    """The files that this process keeps open, least recently used first."""

    def __init__(self, open: Callable[[Path], h5py.File]) -> None:
        """Keep no file yet.

        Args:
            open: function that opens a file; it raises DataError where the file is missing or cannot be read.
        """
        self._open, self._process = open, os.getpid()
        self._files: OrderedDict[Path, tuple[h5py.File, _Version | None]] = OrderedDict()

    def get(self, path: Path) -> h5py.File:
        """Return the handle of ``path``, opening it if need be."""
        version = self.close_if_changed(path)
        if path not in self._files:
            self._files[path] = self._open(path), version
        self._files.move_to_end(path)
        # Descriptors are needed for other ranks and for processes that read ahead, too.
        if len(self._files) > min(_MAX_OPEN_FILES, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4):
            self._files.popitem(last=False)[1][0].close()
        return self._files[path][0]

    def close_if_changed(self, path: Path) -> _Version | None:
        """Close the handle of a file that was replaced, rewritten or removed, and return the file's version.

        HDF5 gives a file that it holds open to whoever opens it again: what it knows of the earlier content must go first.
        """
        if self._process != os.getpid():
            self.close_all()
            self._process = os.getpid()
        version = _version_of(path)
        if path in self._files and (version is None or version != self._files[path][1]):
            self._files.pop(path)[0].close()
        return version

    def close_all(self) -> None:
        """Close all files."""
        for file, _ in self._files.values():
            file.close()
        self._files.clear()


def _version_of(path: Path) -> _Version | None:
    """Return numbers that differ between the versions of a file; None where it is gone, and opening it says so."""
    try:
        about = path.stat()
    except OSError:
        return None
    return about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns
