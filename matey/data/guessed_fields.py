"""Guesses which arrays of a file are fields, predicted or given, and the names of these fields."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from matey.config.description import Axis
from matey.data.arrays.stored import StoredArray
from matey.data.axis_names import COMPONENTS, GRID
from matey.data.guessed_axes import may_vary
from matey.data.staggered import between_cells

_NAMES = {
    **dict.fromkeys("u vx uwnd velocity_x vel_x x_velocity xvel".split(), "velocity_x"),
    **dict.fromkeys("v vy vwnd velocity_y vel_y y_velocity yvel".split(), "velocity_y"),
    **dict.fromkeys("w vz wwnd velocity_z vel_z z_velocity zvel".split(), "velocity_z"),
    **dict.fromkeys("p pres press pressure".split(), "pressure"),
    **dict.fromkeys("rho dens density".split(), "density"),
    **dict.fromkeys("temp temperature".split(), "temperature"),
    **dict.fromkeys("theta potential_temperature".split(), "potential_temperature"),
}
_VECTORS = {"velocity": "velocity", "vel": "velocity", "momentum": "momentum", "magnetic": "magnetic", "b": "magnetic"}
_FEW = 5  # an axis up to this length may count the components of a vector or tensor


def likely_fields(arrays: Mapping[str, StoredArray]) -> dict[str, StoredArray]:
    """Return the arrays that may be fields: those of the largest shape, apart from axes of components, and not staggered."""
    return _largest(arrays, is_timed=True) or _largest(arrays, is_timed=False)


def _largest(arrays: Mapping[str, StoredArray], *, is_timed: bool) -> dict[str, StoredArray]:
    """Return the likely fields among the arrays that may have a time axis (``is_timed``), or among all."""
    candidates = {
        name: stored for name, stored in arrays.items() if len(stored.shape) > 1 and may_vary(stored, is_timed)
    }
    between = between_cells(candidates)
    candidates = {name: stored for name, stored in candidates.items() if name not in between}
    largest = max(
        (stored.shape for stored in candidates.values()), key=lambda shape: (math.prod(shape), len(shape)), default=()
    )
    return {
        name: stored
        for name, stored in candidates.items()
        if _long_axes(stored.shape) == _long_axes(largest) and abs(len(stored.shape) - len(largest)) <= 1
    }


def _long_axes(shape: tuple[int, ...]) -> list[int]:
    return sorted(size for size in shape if size > _FEW)


def sources(
    fields: Mapping[str, StoredArray], axes: Mapping[str, list[Axis] | None], known: Sequence[Axis]
) -> Iterator[tuple[str, Any]]:
    """Yield the name of each field or component, and its source as a description writes it.

    Args:
        fields: the arrays.
        axes: axes of each array.
        known: axes that the description gives for all arrays, if they are known.
    """
    used: set[str] = set()
    for name, stored in fields.items():
        own, plain = axes[name], plain_name(name)
        extra = {} if own == known or own is None else {"axes": own}
        if own is None or "component" not in own:
            yield _unused(field_name(name), used), {"array": name, **extra} if extra else name
            continue
        count, vector = stored.shape[own.index("component")], _VECTORS.get(plain.lower())
        for number in range(count):
            ending = "xyz"[number] if vector and count <= 3 else str(number)
            yield _unused(f"{vector or plain}_{ending}", used), {"array": name, **extra, "index": number}


def named_on_our_axes(found: Mapping[str, Any], theirs: Sequence[Axis]) -> dict[str, Any]:
    """Rename the components of vectors in a vertical plane, whose axes become ours, so that each is along the axis it names.

    The vertical component becomes ``_y``, and the one out of the plane ``_z``. A vector in the plane x, z that has these two
    components alone keeps its names, see `matey.physics.components_of`.

    Args:
        found: source of each field, by name.
        theirs: grid axes of the file, in the order of ours.
    """
    if len(theirs) != 2 or "z" not in theirs:
        return dict(found)
    (across,) = (axis for axis in GRID if axis not in theirs)
    ours: dict[str, str] = {theirs[0]: "y", theirs[1]: "x", across: "z"}
    renamed: dict[str, str] = {}
    for vector in dict.fromkeys(name[:-2] for name in found if name[-2:] in {"_x", "_y", "_z"}):
        own = {axis: f"{vector}_{axis}" for axis in "xyz" if f"{vector}_{axis}" in found}
        if len(own) > 1 and {*own} != {"x", "z"}:
            renamed |= {name: f"{vector}_{ours[axis]}" for axis, name in own.items()}
    return {renamed.get(name, name): source for name, source in found.items()}


def constant_arrays(
    arrays: Mapping[str, StoredArray], field: StoredArray, known: Sequence[Axis], left_out: set[str]
) -> Iterator[tuple[str, list[Axis]]]:
    """Yield the names and axes of arrays on the grid of the fields without time: coefficients, masks, geometry.

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


def is_name_of_field(word: str) -> bool:
    """Whether a word is a common name of a field."""
    return word.lower() in _NAMES


def field_name(name: str) -> str:
    """Return the field's name in the vocabulary, from the name of its array or a word in the name of its file."""
    group, _, last = name.rpartition("/")
    if group and last in COMPONENTS:  # such as E/x
        vector = plain_name(group)
        return f"{_VECTORS.get(vector.lower(), vector)}_{last}"
    return _NAMES.get(plain_name(name).lower(), plain_name(name))


def plain_name(name: str) -> str:
    """Return an array's name as a valid name of a field."""
    parts = [re.sub(r"\W+", "_", part).strip("_") for part in name.split("/")]
    return next(filter(None, reversed(parts)), "field")


def _unused(name: str, used: set[str]) -> str:
    number = 2
    while name in used:
        name, number = f"{name.rstrip('0123456789_')}_{number}", number + 1
    used.add(name)
    return name
