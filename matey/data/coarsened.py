"""A data set at coarser resolution: every n-th frame, and means over blocks of cells.

A model trained on one grid and one time step fails on others without warning. Coarser copies of the data add grids and time
steps without another simulation.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial, reduce
from typing import Any

import numpy as np

from matey.data.trajectories import Cells, DataError, Trajectory, TrajectorySet


class CoarsenedTrajectories(TrajectorySet):
    """The trajectories of a set at every n-th frame, with means over blocks of cells.

    Attributes:
        view: the coarsening in words, such as ``every 2 frames``.
    """

    def __init__(self, source: TrajectorySet, frames: int = 1, cells: int = 1) -> None:
        """Coarsen ``source``.

        Args:
            source: the set.
            frames: stride in frames of the set; the first frame of a trajectory is kept.
            cells: cells per block along each axis that has several cells.

        Raises:
            DataError: a grid does not divide into such blocks.
        """
        words = [f"every {frames} frames"] * (frames > 1) + [f"means of {cells} cells along each axis"] * (cells > 1)
        self.view = ", ".join(words) or "as it is"
        self.system, self.fields, self.units = source.system, source.fields, source.units
        self.length_unit, self.time_unit = source.length_unit, source.time_unit
        self.given, self.given_in_time, self.left_out = source.given, source.given_in_time, source.left_out
        self.made_of = (source,)
        self._source, self._frames, self._cells = source, frames, cells
        self.trajectories = tuple(self._coarser(about) for about in source.trajectories)

    def _coarser(self, about: Trajectory) -> Trajectory:
        z, y, x = (self._block(size) for size in about.grid)
        if any(size % block for size, block in zip(about.grid, (z, y, x), strict=True)):
            raise DataError(
                f"{about.label}: expected a grid that divides into blocks of {self._cells} cells along each axis, got "
                f"{' x '.join(map(str, about.grid))}; choose another number of cells."
            )
        step_z, step_y, step_x = about.spacing
        return replace(
            about,
            name=f"{about.name} ({self.view})",
            num_frames=(about.num_frames - 1) // self._frames + 1,
            grid=(about.grid[0] // z, about.grid[1] // y, about.grid[2] // x),
            spacing=(step_z * z, step_y * y, step_x * x),
            time_step=about.time_step * self._frames,
        )

    def _block(self, size: int) -> int:
        return self._cells if size > 1 else 1

    def chunk(self, trajectory: int) -> tuple[int, int, int] | None:
        """Return the chunk shape of the source set, in coarse cells."""
        chunk, grid = self._source.chunk(trajectory), self._source.trajectories[trajectory].grid
        if chunk is None:
            return None
        z, y, x = (-(-cells // self._block(size)) for cells, size in zip(chunk, grid, strict=True))
        return z, y, x

    def order(self, trajectory: int) -> tuple[int, int, int]:
        """Return the order of the axes of the source set."""
        return self._source.order(trajectory)

    def _read_frames(self, trajectory: int, start: int, stop: int, cells: Cells) -> np.ndarray:
        return self._coarse(partial(self._source._read_frames, trajectory), trajectory, start, stop, cells)

    def _read_given(self, trajectory: int, name: str, start: int, stop: int, cells: Cells) -> np.ndarray:
        return self._coarse(partial(self._source._read_given, trajectory, name), trajectory, start, stop, cells)

    def _coarse(
        self, read: Callable[[int, int, Cells], np.ndarray], trajectory: int, start: int, stop: int, cells: Cells
    ) -> np.ndarray:
        """Read frames of the source, and return the means of blocks, bit for bit the same whichever box is read."""
        blocks = [self._block(size) for size in self._source.trajectories[trajectory].grid]
        z, y, x = (slice(side.start * block, side.stop * block) for side, block in zip(cells, blocks, strict=True))
        values = read(start * self._frames, (stop - 1) * self._frames + 1, (z, y, x))[:: self._frames]
        sizes = (side.stop - side.start for side in (z, y, x))  # given fields may be the same along some axes
        means = np.asarray(np.broadcast_to(values, (*values.shape[:-3], *sizes)), np.float32)
        for after, block in zip((2, 1, 0), blocks, strict=True):
            # Added one by one, since the order in which `numpy.mean` adds depends on the shape.
            rest: list[Any] = [slice(None)] * after
            means = reduce(np.add, (means[(..., slice(first, None, block), *rest)] for first in range(block)))
        return means / math.prod(blocks)
