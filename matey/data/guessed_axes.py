"""Guesses the kinds of the axes of arrays from their names and from coordinates of the same length."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from matey.config.description import Axis
from matey.data.arrays.stored import StoredArray
from matey.data.axis_names import GRID, MOST_COMPONENTS, role_of

_OF_MANY_USES = {"i", "j", "k", "n", "c", "height", "depth", "dim", "variable", "case"}  # names with several meanings
SUGGESTED = {
    2: ["time", "x"],
    3: ["time", "y", "x"],
    4: ["trajectory", "time", "y", "x"],
    5: ["trajectory", "time", "y", "x", "component"],
    6: ["trajectory", "time", "z", "y", "x", "component"],
}
NUMBERED = (
    "Arrays that numbers name may be trajectories or snapshots: name them once, with * for the number; where each is a "
    "snapshot, leave time out of axes."
)


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
    return on_our_grid(known)


def axes_by_name(names: Sequence[str], axes: Sequence[Axis]) -> list[Axis] | None:
    """Return axes in the order that their names imply if it differs from the described order, else None.

    Args:
        names: names of an array's axes in its file.
        axes: kinds of these axes as described.
    """
    roles = {name: role_of(name) for name in names if name.lower() not in _OF_MANY_USES}
    told = [roles.get(name) or axis for name, axis in zip(names, axes, strict=True)]
    return told if told != list(axes) and sorted(told) == sorted(axes) else None


def suggested(shape: Sequence[int], *, in_groups: bool) -> str:
    """Return the usual axes of arrays of a shape, for a comment; an array in a group holds one trajectory."""
    often = SUGGESTED.get(len(shape), SUGGESTED[4])
    if in_groups and "trajectory" in often:
        often = [axis for axis in SUGGESTED.get(len(shape) + 1, often) if axis != "trajectory"]
    return ", ".join(often)


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


def on_our_grid(roles: Sequence[Axis]) -> list[Axis] | None:
    """Return kinds with the grid axes renamed to ours, None without any: a plane has y and x, whatever its file calls them."""
    theirs = [axis for axis in GRID if axis in roles]
    ours: dict[Axis, Axis] = dict(zip(theirs, GRID[len(GRID) - len(theirs) :], strict=True))
    return [ours.get(role, role) for role in roles] if theirs else None


def may_vary(stored: StoredArray, is_timed: bool) -> bool:
    """Whether an array holds real or packed numbers and, if ``is_timed``, has an axis that may be time by its name."""
    roles = [*map(role_of, stored.axes)] or [None]
    return (stored.dtype.kind == "f" or stored.packing.is_packed) and (not is_timed or bool({"time", None} & {*roles}))
