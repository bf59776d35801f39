"""Reads the one array in a ``.npy`` file, which is mapped into memory for one read at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from matey.data.arrays.stored import FileKind, Index, StoredArray, not_read
from matey.data.signature import first_bytes, is_npy
from matey.data.trajectories import DataError
from matey.data.trajectory import check_part
from matey.mistakes import one_line

NAME = "array"


def describe(path: Path) -> dict[str, StoredArray]:
    """Return the description of the array in a file; mapping the file checks that it is as long as it claims.

    Raises:
        DataError: the file cannot be read, see `map_npy`.
    """
    array = map_npy(path)
    return {NAME: StoredArray(shape=array.shape, dtype=array.dtype)}


def attributes(path: Path, name: str) -> dict[str, Any]:
    """Return no attributes: a ``.npy`` file has none."""
    return {}


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
        if "Python objects" in str(error):
            raise DataError(
                f"{path} holds Python objects, which are not read; save numbers: array.astype(float)."
            ) from None
        raise DataError(
            f"{path} cannot be read as a NumPy array ({one_line(error)}); it is truncated or corrupt: copy it again."
        ) from error


def _recognises(path: Path) -> bool:
    return path.is_file() and is_npy(path)


def _read(path: Path, name: str, index: Index) -> np.ndarray:
    try:
        return check_part(str(path), index, np.array(map_npy(path)[index]))
    except IndexError as error:
        raise not_read(path, name, str(error)) from error


NPY = FileKind("NumPy", (".npy",), _recognises, describe, attributes, _read)
