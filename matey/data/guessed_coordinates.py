"""Tells coordinates from fields, and whether they are unevenly spaced or form a circle around the globe."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from matey.config.description import Axis
from matey.data.arrays.stored import FileKind, StoredArray
from matey.data.axis_names import GRID, ROLES, axis_name, role_of
from matey.data.coordinates import UNEVEN_SPACE, even_step, line_of
from matey.data.dates import is_text
from matey.data.trajectories import DataError

MAX_CELLS = 2**24
"""Largest number of cells of an array that is read whole to look at its values."""


def is_coordinate(name: str, stored: StoredArray) -> bool:
    """Whether an array has the name of an axis and the shape of coordinates."""
    is_vector = len(stored.shape) == 1 or (len(stored.shape) == 2 and 1 in stored.shape)  # as MATLAB writes one
    return is_vector and axis_name(name) in ROLES


def has_dates(name: str, stored: StoredArray) -> bool:
    """Whether an array holds times as text."""
    return is_text(stored) and role_of(name) == "time"


def axis_of_mesh(kind: FileKind, path: Path, name: str, stored: StoredArray) -> int | None:
    """Return the only axis along which an array changes, if the array has the name of a grid axis; else None."""
    may_be = ROLES.get(axis_name(name)) in GRID and "time" not in map(role_of, stored.axes)
    if not may_be or stored.dtype.kind not in "fiu" or math.prod(stored.shape) > MAX_CELLS:
        return None
    values = _values(kind, path, name, stored)
    lines = (line_of(values, size) for size in stored.shape if size > 1)
    return next((line[1] for line in lines if line is not None and line[0][0] != line[0][-1]), None)


@dataclass(frozen=True)
class Line:
    """Form of the coordinates along an axis.

    Attributes:
        is_even: whether cells have one size.
        is_circle: whether the cells go once around the globe in degrees of longitude.
    """

    is_even: bool
    is_circle: bool

    @classmethod
    def read(cls, kind: FileKind, path: Path, name: str, stored: StoredArray | None, size: int) -> Line:
        """Judge an array's values; one that is missing or lacks ``size`` coordinates counts as even and no circle."""
        found = line_of(_values(kind, path, name, stored), size) if stored else None
        if stored is None or found is None or size < 2:
            return cls(is_even=True, is_circle=False)
        places = found[0] if found[0][-1] > found[0][0] else found[0][::-1]
        try:
            step = even_step(places, name, UNEVEN_SPACE, "")
        except DataError:
            return cls(is_even=False, is_circle=False)
        is_round = abs(step * size - 360) < 1e-3 * step and stored.unit.lower().startswith("degree")
        return cls(is_even=True, is_circle=is_round)


def hint_on_ends(
    kind: FileKind, path: Path, names: tuple[str, str], stored: StoredArray, axes: Sequence[Axis], axis: Axis
) -> str:
    """Return a hint on an axis's boundary from a middle snapshot: its jump across the ends over those between neighbours.

    Args:
        kind: kind of the file.
        path: the file.
        names: name to show of the array, and its name in the file.
        stored: the array.
        axes: kinds of its axes.
        axis: the axis.
    """
    sizes: dict[Axis, int] = dict(zip(axes, stored.shape, strict=True))
    grid: list[Axis] = [role for role in axes if role in GRID]
    if math.prod(sizes[role] for role in grid) > MAX_CELLS:
        return ""
    picked: dict[Axis, int | slice] = {"time": sizes.get("time", 0) // 2, **dict.fromkeys(grid, slice(None))}
    raw = kind.read(path, names[1], tuple(picked.get(role, 0) for role in axes))
    frame = np.moveaxis(stored.packing.unpacked(raw).astype(np.float64), grid.index(axis), 0)
    if not np.isfinite(frame).all():
        return "; some values here are not finite, and masks are not supported"
    inside = float(np.abs(np.diff(frame, axis=0)).mean()) if len(frame) > 2 else 0.0
    if inside == 0:
        return ""
    ratio = float(np.abs(frame[0] - frame[-1]).mean()) / inside
    return f"; from the last cell to the first, {names[0]} jumps {ratio:.2g} times as far as between neighbours"


def _values(kind: FileKind, path: Path, name: str, stored: StoredArray) -> np.ndarray:
    return stored.packing.unpacked(kind.read(path, name, (slice(None),) * len(stored.shape))).astype(np.float64)
