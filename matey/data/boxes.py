"""Reads boxes of cells of a trajectory.

Axis legend: ``t`` time, ``f`` field, ``z y x`` grid axes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from matey.data.trajectories import TrajectorySet
from matey.samples import Box


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
