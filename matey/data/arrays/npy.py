"""Reads the one array in a ``.npy`` file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from matey.data.arrays.stored import FileKind, Index, StoredArray, not_read
from matey.data.npy import map_npy
from matey.data.signature import is_npy

NAME = "array"


def describe(path: Path) -> dict[str, StoredArray]:
    """Return the description of the array in a file; mapping the file checks that it is as long as it claims.

    Raises:
        DataError: the file cannot be read, see `matey.data.npy.map_npy`.
    """
    array = map_npy(path)
    return {NAME: StoredArray(shape=array.shape, dtype=array.dtype)}


def attributes(path: Path, name: str) -> dict[str, Any]:
    """Return no attributes: a ``.npy`` file has none."""
    return {}


def _recognises(path: Path) -> bool:
    return path.is_file() and is_npy(path)


def _read(path: Path, name: str, index: Index) -> np.ndarray:
    try:
        return np.array(map_npy(path)[index])
    except IndexError as error:
        raise not_read(path, name, str(error)) from error


NPY = FileKind("NumPy", (".npy",), _recognises, describe, attributes, _read)
