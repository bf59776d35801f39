"""Reads arrays of any kind of file by name, their metadata and parts of their values; knows nothing of trajectories.

HDF5 is in `matey.data.hdf5`. Classic netCDF and ``.npy`` files are mapped into memory for one read at a time; Zarr
stores of version 2 or 3 take the zarr package. A missing chunk of a Zarr store reads as the store's fill
value: Zarr defines it so. An array without any chunk counts as never filled.
"""

from __future__ import annotations

import base64
import os
import struct
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from matey.data.hdf5 import HDF5, beginning, first_bytes, is_classic_netcdf, is_npy
from matey.data.remote import ZARR_MARKS, ZARR_METADATA, RemotePath, matches, zarr_store
from matey.data.stored import FileKind, Index, StoredArray, as_number, as_text, not_read, packing_of
from matey.data.trajectories import DataError
from matey.mistakes import one_line

NAME = "array"
"""Name of the only array of a file."""


def map_npy(path: Path) -> np.ndarray:
    """Return an array whose values are read from the file when they are used; drop the array to close the file.

    Raises:
        DataError: the file is missing, unreadable, truncated or corrupt.
    """
    first_bytes(path)
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    # Errors that NumPy was seen to raise when header or data end early, or hold Python objects or a shape such as (-1, True).
    except (OSError, ValueError, EOFError, TypeError, OverflowError) as error:
        raise DataError(
            f"{path} cannot be read as a NumPy array of numbers ({one_line(error)}); copy it again, or save numbers."
        ) from error


def _read_npy(path: Path, name: str, index: Index) -> np.ndarray:
    try:
        return np.array(map_npy(path)[index])
    except IndexError as error:
        raise not_read(path, name, str(error)) from error


def _arrays_of_npy(path: Path) -> dict[str, StoredArray]:
    array = map_npy(path)
    return {NAME: StoredArray(shape=array.shape, dtype=array.dtype)}


NPY = FileKind(
    "NumPy", (".npy",), lambda path: path.is_file() and is_npy(path), _arrays_of_npy, lambda path, name: {}, _read_npy
)


def _arrays_of_netcdf(path: Path) -> dict[str, StoredArray]:
    with _netcdf(path) as file:
        return {name: _variable(item) for name, item in file.variables.items()}


def _variable(item: Any) -> StoredArray:  # noqa: ANN401
    own = item._attributes
    return StoredArray(
        shape=tuple(item.shape),
        dtype=item.data.dtype,
        axes=tuple(item.dimensions),
        unit=as_text(own.get("units")),
        calendar=as_text(own.get("calendar")),
        packing=packing_of(own, item.data.dtype),
    )


def _attributes_of_netcdf(path: Path, name: str) -> dict[str, Any]:
    with _netcdf(path) as file:
        return dict((file.variables[name] if name in file.variables else file)._attributes)


def _read_netcdf(path: Path, name: str, index: Index) -> np.ndarray:
    with _netcdf(path) as file:
        if name not in file.variables:
            raise not_read(path, name, "it no longer exists")
        try:
            part = np.array(file.variables[name].data[index])  # a mapping cannot be closed while a view of it is left
        except IndexError as error:
            raise not_read(path, name, str(error)) from error
    return part.astype(part.dtype.newbyteorder("="))


@contextmanager
def _netcdf(path: Path) -> Iterator[Any]:
    """Map a file into memory for as long as the block lasts, so that processes share nothing."""
    from scipy.io import netcdf_file  # late: a third of the time that all readers take to import

    first_bytes(path)
    try:
        file = netcdf_file(path, "r", mmap=True)
    # Errors that SciPy was seen to raise when the header or the data end too early.
    except (OSError, ValueError, TypeError, IndexError, KeyError) as error:
        raise DataError(
            f"{path} cannot be read as classic netCDF ({one_line(error)}); it is corrupt: copy it again; or it is CDF-5: "
            "nccopy -k netCDF-4 IN OUT."
        ) from error
    with file:
        yield file


NETCDF = FileKind(
    "classic netCDF",
    (".nc", ".cdf"),
    lambda path: path.is_file() and is_classic_netcdf(path),
    _arrays_of_netcdf,
    _attributes_of_netcdf,
    _read_netcdf,
)


def is_zarr(path: Path) -> bool:
    """Whether a folder is a Zarr store."""
    return path.is_dir() and any((path / name).is_file() for name in ZARR_MARKS)


def _arrays_of_store(path: Path) -> dict[str, StoredArray]:
    with _store(path) as root:
        return {name: _in_store(item, path, name) for name, item in _arrays(root)}


def _attributes_in_store(path: Path, name: str) -> dict[str, Any]:
    with _store(path) as root:
        return dict((root[name] if name and hasattr(root, "members") else root).attrs)


def _arrays(root: Any) -> Iterator[tuple[str, Any]]:  # noqa: ANN401 (zarr may not be installed)
    if not hasattr(root, "members"):
        yield NAME, root
        return
    for name, item in sorted(root.members(max_depth=None)):
        if hasattr(item, "shape"):
            yield name, item


def _in_store(item: Any, path: Path, name: str) -> StoredArray:  # noqa: ANN401
    own, dtype = dict(item.attrs), np.dtype(item.dtype)
    axes = getattr(item.metadata, "dimension_names", None) or own.get("_ARRAY_DIMENSIONS") or ()
    folder = path if name == NAME and not (path / name).is_dir() else path / name
    return StoredArray(
        shape=tuple(item.shape),
        dtype=dtype,
        axes=tuple(map(str, axes)) if len(axes) == item.ndim and all(axes) else (),
        unit=as_text(own.get("units")),
        calendar=as_text(own.get("calendar")),
        packing=packing_of(own | _missing(item, own), dtype),
        problem="" if item.ndim < 2 or _has_chunks(folder) else "was never written to: write it again",
    )


def _missing(item: Any, own: dict[str, Any]) -> dict[str, float]:  # noqa: ANN401
    """Return the mark of missing values as xarray keeps it: the fill value in version 2, a base64 text in version 3.

    The fill value of version 3 marks nothing: chunks that were never written read as it.
    """
    mark = own.get("_FillValue")
    if isinstance(mark, str):
        return {"_FillValue": struct.unpack("<d", base64.b64decode(mark, validate=True))[0]}
    fill = as_number(item.fill_value) if item.metadata.zarr_format == 2 else None
    return {"_FillValue": fill} if mark is None and fill else {}


def _has_chunks(folder: Path) -> bool:
    """Whether any chunk was written; taken for granted on another machine, which would have to list them."""
    return isinstance(folder, RemotePath) or any({*names} - {*ZARR_METADATA} for _, _, names in os.walk(folder))


def _read_store(path: Path, name: str, index: Index) -> np.ndarray:
    with _store(path) as root:
        return np.asarray((root[name] if hasattr(root, "members") else root)[index])


@contextmanager
def _store(path: Path) -> Iterator[Any]:
    try:
        import zarr
    except ImportError:
        raise DataError(f"{path} is a Zarr store, which needs the zarr package: pip install zarr.") from None
    if not is_zarr(path):
        raise DataError(f"{path} is no Zarr store any more; it may have been moved while in use.")
    try:
        yield zarr.open(zarr_store(str(path)) if isinstance(path, RemotePath) else path, mode="r")
    except DataError:
        raise
    except Exception as error:  # raised by any codec or, of a store elsewhere, by any library below fsspec
        raise DataError(
            f"{path} cannot be read as Zarr ({one_line(error)}); it is incomplete or corrupt, or the network fails: copy it "
            "again; or a codec is missing: pip install 'numcodecs[...]'."
        ) from error


ZARR = FileKind("Zarr", (), is_zarr, _arrays_of_store, _attributes_in_store, _read_store)

KINDS = {kind.name: kind for kind in (HDF5, NETCDF, NPY, ZARR)}
"""The kinds by their names."""


def kind_of(path: Path) -> FileKind:
    """Return the kind of a file, by its content.

    Raises:
        DataError: the file is missing, or of no known kind.
    """
    kind = next((kind for kind in KINDS.values() if kind.recognises(path)), None)
    if kind is None:
        what = "it is a folder; name a file in it" if path.is_dir() else beginning(path)
        raise DataError(f"{path} is none of {', '.join(KINDS)}: {what}.")
    return kind


def gridded_files(pattern: Path) -> list[Path]:
    """Return the files that a path, a folder or a glob stands for, sorted; a Zarr store counts as a file."""
    suffixes = {suffix for kind in KINDS.values() for suffix in kind.suffixes}
    return files_of([pattern] if pattern.exists() else matches(pattern), suffixes)


def files_of(paths: Iterable[Path], suffixes: Collection[str], names: Collection[str] = ()) -> list[Path]:
    """Return paths, with the files with these endings or names in the place of each folder, see `search_folder`."""
    return [file for path in paths for file in (search_folder(path, suffixes, names) if is_folder(path) else [path])]


def is_folder(path: Path) -> bool:
    """Whether a path is a folder to search; a Zarr store is not."""
    return path.is_dir() and not is_zarr(path)


def search_folder(folder: Path, suffixes: Collection[str], names: Collection[str] = ()) -> list[Path]:
    """Return the files with these endings or names in a folder and its sub-folders, and the Zarr stores, sorted.

    Folders that are symbolic links are not entered. Files and folders with hidden names are left out: unfinished work has such.
    """
    paths = list(_below(folder))
    stores = {path for path in paths if is_zarr(path)}
    files = (path for path in paths if (path.suffix in suffixes or path.name in names) and not path.is_dir())
    return sorted(path for path in {*files, *stores} if not stores.intersection(path.parents))


def _below(folder: Path) -> Iterable[Path]:
    """Yield all files and folders below a folder that no hidden name leads to; each folder is listed once."""
    if isinstance(folder, RemotePath):
        start = len(folder.parts)
        yield from (path for path in folder.rglob("*") if not any(part.startswith(".") for part in path.parts[start:]))
        return
    for at, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(at, name) for name in (*folders, *files) if not name.startswith("."))
