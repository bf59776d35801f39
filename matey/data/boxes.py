"""Reads boxes of cells of a trajectory; boxes that share chunks of a file are read together.

Axis legend: ``t`` time, ``f`` field, ``z y x`` grid axes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from matey.data.trajectories import Cells, TrajectorySet
from matey.samples import Box

MOST_AROUND = 2
"""Largest ratio of the cells of an enclosing box to the cells of its boxes at which it is read in their place."""


def read_boxes(
    source: TrajectorySet, trajectory: int, start: int, stop: int, boxes: Sequence[Cells], *, given: bool = False
) -> list[np.ndarray]:
    """Read frames ``(t, f, z, y, x)`` of boxes of cells, see `read_box`; or of the given fields, see ``read_given``.

    A compressed chunk has to be unpacked whole for every read that touches it. Boxes that share chunks and lie close to each
    other are therefore cut out of one enclosing box.

    Raises:
        DataError: see ``TrajectorySet.read``.
    """
    found: list[np.ndarray] = []
    for together in _sharing_chunks(boxes, source.chunk(trajectory)):
        around = _around(together)
        values = read_box(source, trajectory, start, stop, around, given=given)
        if len(together) == 1:
            found.append(values)
            continue
        for box in together:
            z, y, x = (slice(s.start - a.start, s.stop - a.start) for s, a in zip(box, around, strict=True))
            found.append(values[..., z, y, x].copy())  # a view would keep the whole enclosing box
    return found


def unpacked_cells(boxes: Sequence[Box], chunk: Sequence[int] | None, grid: Sequence[int]) -> int:
    """Return the number of cells that are unpacked to read boxes: those of whole chunks, counted again for each box.

    Args:
        boxes: boxes of cells.
        chunk: shape ``z, y, x`` of the compressed chunks; None where any part can be read.
        grid: cells ``z, y, x`` of a sample; chunks end there.
    """
    total = 0
    for _, box in boxes:
        sides = zip(box, chunk or (1, 1, 1), grid, strict=True)
        total += math.prod(
            sum(min(-(-span.stop // n) * n, size) - span.start // n * n for span in _spans(side, size))
            for side, n, size in sides
        )
    return total


def read_box(
    source: TrajectorySet,
    trajectory: int,
    start: int,
    stop: int,
    cells: tuple[slice, ...],
    axis: int = 0,
    *,
    given: bool = False,
) -> np.ndarray:
    """Read frames ``(t, f, z, y, x)`` of a box of cells, which may wrap around the domain at both of its ends.

    Raises:
        DataError: see ``TrajectorySet.read``.
    """
    if axis == len(cells):
        z, y, x = cells
        return (source.read_given if given else source.read)(trajectory, start, stop, (z, y, x))
    side, length = cells[axis], source.trajectories[trajectory].grid[axis]
    boxes = [(*cells[:axis], span, *cells[axis + 1 :]) for span in _spans(side, length)]
    parts = [read_box(source, trajectory, start, stop, box, axis + 1, given=given) for box in boxes]
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=axis + 2)


def _spans(side: slice, length: int) -> list[slice]:
    """Return the spans of an axis of ``length`` cells that a side takes, which may go on at the axis' other end."""
    turns = range(side.start // length * length, side.stop, length)
    return [slice(max(side.start - turn, 0), min(side.stop - turn, length)) for turn in turns]


def _sharing_chunks(boxes: Sequence[Cells], chunk: Sequence[int] | None) -> Iterator[list[Cells]]:
    """Yield lists of consecutive boxes: each box of a list shares a chunk with an earlier one, and all lie close together."""
    together: list[Cells] = []
    for box in boxes:
        shares = chunk is not None and any(_share(box, other, chunk) for other in together)
        if together and not (
            shares and _number(_around([*together, box])) <= MOST_AROUND * sum(map(_number, (*together, box)))
        ):
            yield together
            together = []
        together.append(box)
    if together:
        yield together


def _share(box: Cells, other: Cells, chunk: Sequence[int]) -> bool:
    """Whether some chunk has cells of both boxes."""
    return all(
        one.start // size <= (two.stop - 1) // size and two.start // size <= (one.stop - 1) // size
        for one, two, size in zip(box, other, chunk, strict=True)
    )


def _around(boxes: Sequence[Cells]) -> Cells:
    z, y, x = (
        slice(min(side.start for side in sides), max(side.stop for side in sides)) for sides in zip(*boxes, strict=True)
    )
    return z, y, x


def _number(box: Cells) -> int:
    return math.prod(side.stop - side.start for side in box)
