"""Recognises arrays that lie between the cells of others, as on staggered grids: one longer or one shorter along an axis.

They are not fields on the same grid, nor averaged here: a guess leaves them out, and a description with them is refused.

    p: 3 cells            |  o  |  o  |  o  |
    u: 4 faces            |     |     |     |
    u: the 2 inside             |     |
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matey.data.arrays.stored import StoredArray
from matey.data.axis_names import BETWEEN, GRID, MARK_BETWEEN, role_of
from matey.mistakes import listed

_FEWEST = 6  # an axis of unknown kind with fewer cells may count components
_BETWEEN = {"u", "v", "w", "vx", "vy", "vz"}  # names of arrays that may lie between cells


def between_cells(arrays: Mapping[str, StoredArray]) -> set[str]:
    """Return the names of the arrays that lie between the cells of others.

    Arrays at the cells have most neighbours: velocities of two directions differ from a pressure along one axis, and from each
    other along two.
    """
    kinds: dict[tuple[object, ...], list[str]] = {}
    for name, stored in arrays.items():
        kinds.setdefault((stored.shape, stored.axes), []).append(name)
    members = [(arrays[names[0]], names) for names in kinds.values()]
    ranks = [_rank(stored, names, [other for other, _ in members]) for stored, names in members]
    are_marked = not any(is_unmarked for is_unmarked, *_ in ranks)
    cells = [(stored, rank) for (stored, _), rank in zip(members, ranks, strict=True) if are_marked or rank[0]]
    return {
        name
        for (stored, names), rank in zip(members, ranks, strict=True)
        if any(_apart(stored, other) and above > rank for other, above in cells)
        for name in names
    }


def said_of_between(arrays: Mapping[str, StoredArray], field: StoredArray) -> str:
    """Return a note on arrays that are left out since they lie between the cells of a field, with advice; empty for none."""
    left_out = {name: stored for name, stored in arrays.items() if _apart(stored, field)}
    if not left_out:
        return ""
    names = listed(f"{name} {stored.shape}" for name, stored in left_out.items())
    name = min(left_out, key=lambda name: name.lower() not in _BETWEEN)
    return (
        f"Left out, since they lie between the cells of the fields (a staggered grid): {names}. To have them, average them to "
        f"the cells first{_averaged(name, left_out[name], field)}"
    )


def remedy_between(own: Mapping[Any, int], sizes: Mapping[str, int]) -> str:
    """Return advice on a field whose grid is one cell longer or shorter than that of others; empty for any other field."""
    differ = [axis for axis, size in own.items() if sizes.get(axis, size) != size]
    if not differ or not all(axis in GRID and abs(own[axis] - sizes[axis]) == 1 for axis in differ):
        return ""
    return (
        f"what lies between the cells along {' and '.join(differ)}, as on a staggered grid, has to be averaged to the cells "
        "first: docs/data.md shows how"
    )


def _rank(stored: StoredArray, names: Sequence[str], all_kinds: Sequence[StoredArray]) -> tuple[object, ...]:
    """Return a rank that is higher for arrays at cells than between them: by axis names, neighbours, names, count and size."""
    near = [other for other in all_kinds if len(_apart(stored, other)) == 1]
    are_marked = any(name.lower().endswith(MARK_BETWEEN) or name.lower() in BETWEEN for name in stored.axes)
    are_winds = all(name.rpartition("/")[2].lower() in _BETWEEN for name in names)
    return not are_marked, len(near), not are_winds, len(names), -math.prod(stored.shape)


def _apart(stored: StoredArray, field: StoredArray) -> list[int]:
    """Return the axes along which an array is one longer than another, or one shorter; none where it differs in another way."""
    if len(stored.shape) != len(field.shape):
        return []
    differ = [size - other for size, other in zip(stored.shape, field.shape, strict=True)]
    positions = [position for position, by in enumerate(differ) if by]
    is_apart = set(differ) <= {0, 1} or set(differ) <= {0, -1}
    return positions if is_apart and all(_is_along_grid(stored, field, position) for position in positions) else []


def _is_along_grid(stored: StoredArray, field: StoredArray, position: int) -> bool:
    roles = {role_of(each.axes[position]) for each in (stored, field) if each.axes}
    is_named = bool(roles) and roles <= {*GRID}
    return is_named or (roles <= {None, *GRID} and min(stored.shape[position], field.shape[position]) >= _FEWEST)


def _averaged(name: str, stored: StoredArray, field: StoredArray) -> str:
    """Return the code that averages an array to the cells of a field, in xarray or, where axes have no names, in NumPy."""
    longer = _apart(stored, field)
    if stored.shape[longer[0]] < field.shape[longer[0]]:
        return "; they have no value beyond the outermost cells, which have to be cut."
    if not stored.axes or not field.axes:
        (position, *_), plain = longer, name.rpartition("/")[2]
        first, last = (", ".join([":"] * position + [side]) for side in ("1:", ":-1"))
        return f", in NumPy: ({plain}[{first}] + {plain}[{last}]) / 2"
    of_each = {stored.axes[position]: field.axes[position] for position in longer}
    pairs, rest, names = (
        ", ".join(form.format(theirs, ours) for theirs, ours in of_each.items())
        for form in ("{0}=2", "{0}=slice(1, None)", "{0}={1!r}")
    )
    held = f"ds[{name!r}]"
    average = f"{held}.drop_vars({held}.coords).rolling({pairs}).mean().isel({rest}).rename({names})"
    return f", in xarray: {held} = {average}"
