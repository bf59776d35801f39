"""Reads arrays in Zarr stores, folders of version 2 or 3, with the zarr package where it is installed.

A missing chunk reads as the store's fill value: Zarr defines it so, and writers leave out chunks that hold nothing else. An
array without any chunk counts as never filled.
"""

from __future__ import annotations

import base64
import os
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import metadata
from pathlib import Path
from typing import Any

import numpy as np

from matey.data.arrays.mapped import NAME
from matey.data.arrays.stored import FileKind, Index, StoredArray, as_number, as_text, packing_of
from matey.data.hdf5 import bytes_of
from matey.data.remote import ZARR_MARKS, ZARR_METADATA, RemotePath, zarr_store
from matey.data.trajectories import DataError, check_part
from matey.mistakes import one_line, regular

# How many times its bytes on disk an array may claim: Zstandard, Zarr's own compression, makes 4 bytes of 128 KiB of one value.
# Chunks of the fill value are not even written, so a mask of any size may take next to no room: claims up to 16 GiB pass.
_MOST_COMPRESSION, _MOST_UNWRITTEN = 2**15, 2**34


def is_zarr(path: Path) -> bool:
    """Whether a folder is a Zarr store."""
    return path.is_dir() and any((path / name).is_file() for name in ZARR_MARKS)


def describe(path: Path) -> dict[str, StoredArray]:
    """Return the arrays of a store, those in groups as ``group/name``.

    Raises:
        DataError: the store is gone or corrupt, or zarr is not installed.
    """
    with _opened(path) as root:
        return {name: _described(item, path, name) for name, item in _arrays(root)}


def attributes(path: Path, name: str) -> dict[str, Any]:
    """Return the attributes of a store, or of a group or array in it."""
    with _opened(path) as root:
        return dict((root[name] if name and hasattr(root, "members") else root).attrs)


def _arrays(root: Any) -> Iterator[tuple[str, Any]]:  # noqa: ANN401 (zarr may not be installed)
    if not hasattr(root, "members"):
        yield NAME, root
        return
    for name, item in sorted(root.members(max_depth=None)):
        if hasattr(item, "shape"):
            yield name, item


def _described(item: Any, path: Path, name: str) -> StoredArray:  # noqa: ANN401
    own, dtype = dict(item.attrs), np.dtype(item.dtype)
    axes = getattr(item.metadata, "dimension_names", None) or own.get("_ARRAY_DIMENSIONS") or ()
    # The size of a remote store is unknown: it would take a request for each chunk.
    folder = path if name == NAME and not (path / name).is_dir() else path / name
    held = 2**63 if isinstance(path, RemotePath) else _bytes_of_chunks(folder)
    is_filled = held > 0 or item.ndim < 2
    return StoredArray(
        shape=tuple(item.shape),
        dtype=dtype,
        axes=tuple(map(str, axes)) if len(axes) == item.ndim and all(axes) else (),
        unit=as_text(own.get("units")),
        calendar=as_text(own.get("calendar")),
        packing=packing_of(own | _missing(item, own), dtype),
        claimed=bytes_of(tuple(item.shape), dtype, tuple(item.shards or item.chunks)),
        limit=max(_MOST_UNWRITTEN, _MOST_COMPRESSION * held) if is_filled else 0,
        chunk=tuple(item.chunks),
    )


def _missing(item: Any, own: dict[str, Any]) -> dict[str, float]:  # noqa: ANN401
    """Return the mark of missing values as xarray keeps it: the fill value in version 2, a base64 text in version 3.

    The fill value of version 3 marks nothing: chunks that were never written read as it.
    """
    mark = own.get("_FillValue")
    if isinstance(mark, str):
        try:
            return {"_FillValue": struct.unpack("<d", base64.b64decode(mark, validate=True))[0]}
        except (ValueError, struct.error):
            return {}
    fill = as_number(item.fill_value) if item.metadata.zarr_format == 2 else None
    return {"_FillValue": fill} if mark is None and fill else {}


def _bytes_of_chunks(folder: Path) -> int:
    files = (
        os.path.join(base, name) for base, _, names in os.walk(folder) for name in names if name not in ZARR_METADATA
    )
    return sum(regular(Path(file)).stat().st_size for file in files)


def _read(path: Path, name: str, index: Index) -> np.ndarray:
    with _opened(path) as root:
        part = np.asarray((root[name] if hasattr(root, "members") else root)[index])
        return check_part(f"{path}, {name}", index, part)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        import zarr
    except ImportError:
        raise DataError(f"{path} is a Zarr store, which needs the zarr package: pip install zarr.") from None
    if not is_zarr(path):
        raise DataError(f"{path} is no Zarr store any more; it may have been moved while in use.")
    try:
        yield zarr.open(zarr_store(str(path)) if isinstance(path, RemotePath) else _files(path), mode="r")
    # Errors that zarr and its codecs were seen to raise on corrupt metadata and chunks.
    except (OSError, ValueError, LookupError, TypeError, RuntimeError, AttributeError, ArithmeticError) as error:
        if isinstance(error, DataError):
            raise
        if type(error).__name__ == "UnknownCodecError":  # of zarr or of numcodecs, which name the codec in quotes
            raise _lacks_codec(path, re.findall("[^']+", str(error))[-1]) from error
        raise DataError(
            f"{path} cannot be read as Zarr ({one_line(error)}); it is incomplete or corrupt: copy it again."
        ) from error


def _files(path: Path) -> Any:  # noqa: ANN401
    """Return a store for the zarr package, which would read a folder in the place of a chunk as the fill value."""
    from zarr.storage import LocalStore

    class Files(LocalStore):  # type: ignore[misc]  # untyped
        """The files of a folder."""

        async def get(self, key: str, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
            if regular(self.root / key).is_dir():
                raise IsADirectoryError(f"{key} is a folder, not a file")
            return await super().get(key, *args, **kwargs)

    return Files(path, read_only=True)


def _lacks_codec(path: Path, codec: str) -> DataError:
    """Return the error about a store that nothing installed can decompress, though it may be whole."""
    remedy = "install the package that brings it"
    if codec in (metadata("numcodecs").get_all("Provides-Extra") or ()):
        remedy = f"pip install 'numcodecs[{codec}]'"
    return DataError(
        f"{path} is compressed by the codec {codec}, which is not installed here: {remedy}, or write the store again with "
        "zarr's own compression where it can be read."
    )


ZARR = FileKind("Zarr", (), is_zarr, describe, attributes, _read)
