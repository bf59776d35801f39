"""All kinds of files whose arrays can be read, and the search for such files."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from pathlib import Path

from matey.data.arrays.hdf5 import HDF5
from matey.data.arrays.mapped import NETCDF, NPY
from matey.data.arrays.stored import FileKind
from matey.data.arrays.zarr import ZARR, is_zarr
from matey.data.hdf5 import beginning
from matey.data.remote import RemotePath, matches
from matey.data.trajectories import DataError

KINDS = {kind.name: kind for kind in (HDF5, NETCDF, NPY, ZARR)}
"""The kinds by their names."""


def kind_of(path: Path) -> FileKind:
    """Return the kind of a file, by its content.

    Raises:
        DataError: the file is missing, or of no known kind.
    """
    kind = next((kind for kind in KINDS.values() if kind.recognises(path)), None)
    if kind is None:
        what = _inside(path) if path.is_dir() else beginning(path)
        names = ", ".join(KINDS)
        raise DataError(f"{path} is none of {names}: {what}.")
    return kind


def _inside(folder: Path) -> str:
    """Return advice on a folder where a file is expected, with the first file in it that could be meant."""
    first = next(iter(gridded_files(folder)), None)
    return f"it is a folder; name a file of it, such as {first}" if first else "it is a folder without any such file"


def gridded_files(pattern: Path) -> list[Path]:
    """Return the files that a path, a folder or a glob stands for, sorted; a Zarr store counts as a file."""
    suffixes = tuple(dict.fromkeys(suffix for kind in KINDS.values() for suffix in kind.suffixes))
    found = [pattern] if pattern.exists() else matches(pattern)
    return [file for match in found for file in (search_folder(match, suffixes) if is_folder(match) else [match])]


def is_folder(path: Path) -> bool:
    """Whether a path is a folder to search; a Zarr store is not."""
    return path.is_dir() and not is_zarr(path)


def search_folder(folder: Path, suffixes: Collection[str], names: Collection[str] = ()) -> list[Path]:
    """Return the files with these endings or names in a folder and its sub-folders, and the Zarr stores, sorted.

    Folders that are symbolic links are not entered. Files and folders with hidden names are left out: unfinished work has such.

    Raises:
        DataError: a link that is named as a data file leads nowhere.
    """
    paths = list(_below(folder))
    stores = {path for path in paths if is_zarr(path)}
    files = (path for path in paths if (path.suffix in suffixes or path.name in names) and _is_file(path))
    return sorted(path for path in {*files, *stores} if not stores.intersection(path.parents))


def _below(folder: Path) -> Iterable[Path]:
    """Yield all files and folders below a folder that no hidden name leads to; each folder is listed once."""
    if isinstance(folder, RemotePath):
        start = len(folder.parts)
        yield from (path for path in folder.rglob("*") if not any(map(_is_hidden, path.parts[start:])))
        return
    for at, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not _is_hidden(name)]
        yield from (Path(at, name) for name in (*folders, *files) if not _is_hidden(name))


def _is_file(path: Path) -> bool:
    if path.is_file():
        return True
    if path.is_symlink() and not path.exists():
        raise DataError(
            f"{path} is a link to {path.readlink()}, which does not exist; restore that, or remove the link."
        )
    return False


def _is_hidden(name: str) -> bool:
    return name.startswith(".")
