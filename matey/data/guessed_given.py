"""Guesses which arrays of a file are given fields, constant in time: coefficients, masks, geometry."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from matey.config.places import Axis
from matey.data.arrays.stored import StoredArray
from matey.data.axis_names import GRID

Guessed = tuple[str, list[Axis]]
"""Name of an array, and its axes."""


def constant_arrays(
    arrays: Mapping[str, StoredArray], field: StoredArray, known: Sequence[Axis], left_out: set[str]
) -> Iterator[Guessed]:
    """Yield the arrays that lie on the grid of the fields and have no time.

    Args:
        arrays: all arrays of the file.
        field: one of the fields.
        known: axes of that field.
        left_out: names of arrays that are known to be something else.
    """
    for name, stored in arrays.items():
        own = None if name in left_out else _axes_of(stored, field, known)
        if own and "time" not in own and not set(own).isdisjoint(GRID):
            yield name, own


def _axes_of(stored: StoredArray, field: StoredArray, known: Sequence[Axis]) -> list[Axis] | None:
    """Return an array's axes, by the names of the field's axes or, without names, by their lengths in order."""
    if stored.axes and field.axes:
        ours = dict(zip(field.axes, known, strict=True))
        found = [ours[axis] for axis in stored.axes if axis in ours]
        return found if len(found) == len(stored.axes) == len(set(found)) else None
    sizes = dict(zip(known, field.shape, strict=True))
    for outside in ({"time", "component"}, {"time", "component", "trajectory"}):
        left = [axis for axis in known if axis not in outside]
        if len(left) > 1 and tuple(sizes[axis] for axis in left) == stored.shape:
            return left
    return None
