"""Guesses which arrays of a file are fields, predicted or given, what their axes are, and which arrays are coordinates."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from matey.config.description import Axis
from matey.data.arrays.stored import StoredArray
from matey.data.coordinates import COMPONENTS, GRID, MOST_COMPONENTS, ROLES, axis_name, role_of
from matey.data.dates import is_text

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
_OF_MANY_USES = {"i", "j", "k", "n", "c", "height", "depth", "dim", "variable", "case"}  # names with several meanings
SUGGESTED = {
    2: ["time", "x"],
    3: ["time", "y", "x"],
    4: ["trajectory", "time", "y", "x"],
    5: ["trajectory", "time", "y", "x", "component"],
    6: ["trajectory", "time", "z", "y", "x", "component"],
}
"""Usual axes of an array by their number."""


def likely_fields(arrays: Mapping[str, StoredArray]) -> dict[str, StoredArray]:
    """Return the arrays that may be fields: those of the largest shape, apart from axes of components, and not staggered."""
    return _largest(arrays, is_timed=True) or _largest(arrays, is_timed=False)


def _largest(arrays: Mapping[str, StoredArray], *, is_timed: bool) -> dict[str, StoredArray]:
    """Return the likely fields among the arrays that may have a time axis (``is_timed``), or among all."""
    candidates = {
        name: stored for name, stored in arrays.items() if len(stored.shape) > 1 and _may_vary(stored, is_timed)
    }
    candidates = {
        name: stored
        for name, stored in candidates.items()
        if not any(lies_between(stored, other) for other in candidates.values())
    }
    largest = max(
        (stored.shape for stored in candidates.values()), key=lambda shape: (math.prod(shape), len(shape)), default=()
    )
    return {
        name: stored
        for name, stored in candidates.items()
        if _long_axes(stored.shape) == _long_axes(largest) and abs(len(stored.shape) - len(largest)) <= 1
    }


def _may_vary(stored: StoredArray, is_timed: bool) -> bool:
    """Whether an array holds real or packed numbers and, if ``is_timed``, has an axis that may be time by its name."""
    roles = [*map(role_of, stored.axes)] or [None]
    return (stored.dtype.kind == "f" or stored.packing.is_packed) and (not is_timed or bool({"time", None} & {*roles}))


def _long_axes(shape: tuple[int, ...]) -> list[int]:
    return sorted(size for size in shape if size > _FEW)


def lies_between(stored: StoredArray, other: StoredArray) -> bool:
    """Whether an array lies on the faces or corners of another's cells: one longer along some axes, as on staggered grids.

    p: 3 cells            |  o  |  o  |  o  |
    u: 4 faces            |     |     |     |
    """
    longer = [size - own for size, own in zip(stored.shape, other.shape, strict=False)]
    if len(stored.shape) != len(other.shape) or {*longer} != {0, 1}:
        return False
    names = other.axes or [""] * len(longer)
    along = [(size, name) for size, name, by in zip(other.shape, names, longer, strict=True) if by]
    return all(size > _FEW or role_of(name) in GRID for size, name in along)  # others may count components


def guess_axes(stored: StoredArray, coordinates: Mapping[str, int], measured: Collection[str]) -> list[Axis] | None:
    """Return the kind of each axis of an array, None where they cannot be told.

    Args:
        stored: the array.
        coordinates: lengths of the file's one-dimensional arrays that have the name of an axis, by name.
        measured: names of all one-dimensional arrays of real numbers; an axis with such a name does not count components.
    """
    roles = [*map(role_of, stored.axes)] if stored.axes else _by_length(stored.shape, coordinates)
    left = [position for position, role in enumerate(roles) if role is None]
    if len(left) == 1 and left[0] > 0 and stored.shape[left[0]] <= MOST_COMPONENTS and "component" not in roles:
        is_measured = bool(stored.axes) and stored.axes[left[0]] in measured
        roles[left[0]] = None if is_measured else "component"
    known = [role for role in roles if role is not None]
    if len(known) < len(roles) or len(set(known)) < len(known) or "time" not in known:
        return None
    return _on_our_grid(known)


def snapshot_axes(stored: StoredArray, coordinates: Mapping[str, int]) -> list[Axis] | None:
    """Return the axes of an array of one snapshot, None where neither names nor coordinates of their lengths tell them."""
    names = (
        {size: name for name, size in coordinates.items()} if len({*coordinates.values()}) == len(coordinates) else {}
    )
    roles = [role_of(name or "") for name in (stored.axes or [names.get(size) for size in stored.shape])]
    known = _on_our_grid([role for role in roles if role is not None])
    return known if known and len({*known}) == len(roles) and "time" not in known else None


def axes_by_name(names: Sequence[str], axes: Sequence[Axis]) -> list[Axis] | None:
    """Return axes in the order that their names imply if it differs from the described order, else None.

    Args:
        names: names of an array's axes in its file.
        axes: kinds of these axes as described.
    """
    roles = {name: role_of(name) for name in names if name.lower() not in _OF_MANY_USES}
    told = [roles.get(name) or axis for name, axis in zip(names, axes, strict=True)]
    return told if told != list(axes) and sorted(told) == sorted(axes) else None


def _by_length(shape: Sequence[int], coordinates: Mapping[str, int]) -> list[Axis | None]:
    """Return the kinds of unnamed axes from coordinates of their length; two axes of one length cannot be told apart."""
    roles: list[Axis | None] = [None] * len(shape)
    for name, size in coordinates.items():
        places = [position for position, length in enumerate(shape) if length == size]
        if len(places) == 1 and list(coordinates.values()).count(size) == 1:
            roles[places[0]] = role_of(name)
    is_first_left = roles[:1] == [None] and len(shape) > 1 and all(roles[1:])
    if is_first_left and "trajectory" not in roles:
        roles[0] = "trajectory"
    return roles


def _on_our_grid(roles: Sequence[Axis]) -> list[Axis] | None:
    """Return kinds with the grid axes renamed to ours, None without any: a plane has y and x, whatever its file calls them."""
    theirs = [axis for axis in GRID if axis in roles]
    ours: dict[Axis, Axis] = dict(zip(theirs, GRID[len(GRID) - len(theirs) :], strict=True))
    return [ours.get(role, role) for role in roles] if theirs else None


def is_coordinate(name: str, stored: StoredArray) -> bool:
    """Whether an array has the name of an axis and the shape of coordinates."""
    is_vector = len(stored.shape) == 1 or (len(stored.shape) == 2 and 1 in stored.shape)  # as MATLAB writes one
    return is_vector and axis_name(name) in ROLES


def has_dates(name: str, stored: StoredArray) -> bool:
    """Whether an array holds times as text."""
    return is_text(stored) and role_of(name) == "time"


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


def field_name(name: str) -> str:
    """Return the field's name in the vocabulary, from the name of its array."""
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
