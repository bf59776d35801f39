"""Arrays that lie between the cells of others, as velocities do on staggered grids: they are one longer along an axis.

They are no fields of the same grid and are not averaged here: a guess leaves them out, and a description with them is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from matey.data.arrays.stored import StoredArray
from matey.data.guessed_axes import GRID, MARK_BETWEEN, role_of
from matey.mistakes import listed

_FEWEST = 6  # cells along an axis whose name does not say what it is: fewer may be components


def between_cells(arrays: Mapping[str, StoredArray]) -> set[str]:
    """Return the names of the arrays that lie between the cells of another."""
    kinds = {(stored.shape, stored.axes): stored for stored in arrays.values()}
    found = {kind for kind, own in kinds.items() if any(_lies_between(own, other) for other in kinds.values())}
    return {name for name, stored in arrays.items() if (stored.shape, stored.axes) in found}


def said_of_between(arrays: Mapping[str, StoredArray], field: StoredArray) -> str:
    """Say which arrays are left out, since they lie between the cells of a field, and what to do; nothing where none does."""
    left_out = {name: stored for name, stored in arrays.items() if _lies_between(stored, field)}
    if not left_out:
        return ""
    names = listed(f"{name} {stored.shape}" for name, stored in left_out.items())
    name, stored = next(iter(left_out.items()))
    return (
        f"Left out, since they lie between the cells of the fields (a staggered grid): {names}. To have them, average them to "
        f"the cells first, {_averaged(name, stored, field)}"
    )


def remedy_between(own: Mapping[Any, int], sizes: Mapping[str, int]) -> str:
    """Return what to do about a field whose grid is one cell longer or shorter than that of others; nothing about another."""
    differ = [axis for axis, size in own.items() if sizes.get(axis, size) != size]
    if not differ or not all(axis in GRID and abs(own[axis] - sizes[axis]) == 1 for axis in differ):
        return ""
    return (
        f"what lies between the cells along {' and '.join(differ)}, as on a staggered grid, has to be averaged to the cells "
        "first: docs/data.md shows how"
    )


def _lies_between(stored: StoredArray, field: StoredArray) -> bool:
    longer = [*_longer(stored.shape, field.shape)]
    return bool(longer) and all(_is_along_grid(stored, field, position) for position in longer)


def _longer(shape: Sequence[int], cells: Sequence[int]) -> Iterator[int]:
    """Yield the axes along which a shape is one longer than that of the cells; none where it differs in another way."""
    if len(shape) == len(cells) and all(size - other in (0, 1) for size, other in zip(shape, cells, strict=True)):
        yield from (position for position, size in enumerate(shape) if size != cells[position])


def _is_along_grid(stored: StoredArray, field: StoredArray, position: int) -> bool:
    name = stored.axes[position] if stored.axes else ""
    is_marked = name.lower().endswith(MARK_BETWEEN) and role_of(name) in GRID
    return is_marked or (role_of(name) in (None, *GRID) and field.shape[position] >= _FEWEST)


def _averaged(name: str, stored: StoredArray, field: StoredArray) -> str:
    """Return the code that averages an array to the cells of a field, in xarray or, where axes have no names, in NumPy."""
    longer = [*_longer(stored.shape, field.shape)]
    if not stored.axes or not field.axes:
        (position, *_), plain = longer, name.rpartition("/")[2]
        first, last = (", ".join([":"] * position + [side]) for side in ("1:", ":-1"))
        return f"in NumPy: ({plain}[{first}] + {plain}[{last}]) / 2"
    of_each = {stored.axes[position]: field.axes[position] for position in longer}
    pairs, rest, names = (
        ", ".join(form.format(theirs, ours) for theirs, ours in of_each.items())
        for form in ("{0}=2", "{0}=slice(1, None)", "{0}={1!r}")
    )
    held = f"ds[{name!r}]"
    average = f"{held}.drop_vars({held}.coords).rolling({pairs}).mean().isel({rest}).rename({names})"
    return f"in xarray: {held} = {average}"
