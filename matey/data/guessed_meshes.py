"""Tells arrays that have a coordinate of each cell, as mesh grids do, from fields."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from matey.data.arrays.stored import FileKind, StoredArray
from matey.data.axis_names import GRID, ROLES, axis_name, role_of
from matey.data.coordinates import line_of

MAX_CELLS = 2**24
"""Cells of an array that is read whole to look at its values."""


def axis_of_mesh(kind: FileKind, path: Path, name: str, stored: StoredArray) -> int | None:
    """Return the only axis along which the values of an array change, if it is called as an axis of a grid; else None."""
    may_be = (
        ROLES.get(axis_name(name)) in GRID and stored.dtype.kind in "fiu" and "time" not in map(role_of, stored.axes)
    )
    if not may_be or math.prod(stored.shape) > MAX_CELLS:
        return None
    raw = kind.read(path, name, (slice(None),) * len(stored.shape))
    values = stored.packing.unpacked(raw).astype(np.float64)
    lines = (line_of(values, size) for size in stored.shape if size > 1)
    return next((line[1] for line in lines if line is not None and line[0][0] != line[0][-1]), None)
