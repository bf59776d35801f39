"""Sets made of others: several as one, at coarser resolution, and cut in time."""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial, reduce
from itertools import accumulate, groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np

from matey.data.splits import check_fractions, sizes_of
from matey.data.trajectories import PARTS, Cells, Coordinates, DataError, Part, Trajectory, TrajectorySet


class View(TrajectorySet):
    """A set that shows trajectories of others, which it reads."""

    def _show(self, source: TrajectorySet) -> None:
        """Take fields and units from a set, which is the only one that is shown."""
        self.system, self.fields, self.units = source.system, source.fields, source.units
        self.length_unit, self.time_unit = source.length_unit, source.time_unit
        self.given, self.given_in_time, self.left_out = source.given, source.given_in_time, source.left_out
        self.made_of = (source,)

    def _located(self, trajectory: int) -> tuple[TrajectorySet, int, int]:
        """Return the set of a trajectory, and its number and first frame there."""
        return self.made_of[0], trajectory, 0

    def order(self, trajectory: int) -> tuple[int, int, int]:
        """Return the order of the axes in the trajectory's own set."""
        part, number, _ = self._located(trajectory)
        return part.order(number)

    def _read_frames(self, trajectory: int, start: int, stop: int, cells: Cells) -> np.ndarray:
        part, number, first = self._located(trajectory)
        return part._read_frames(number, first + start, first + stop, cells)

    def _read_given(self, trajectory: int, name: str, start: int, stop: int, cells: Cells) -> np.ndarray:
        part, number, first = self._located(trajectory)
        return part._read_given(number, name, first + start, first + stop, cells)

    def _read_coordinates(self, axis: str, trajectories: Sequence[int]) -> Iterator[Coordinates | None]:
        for part, located in groupby(map(self._located, trajectories), key=itemgetter(0)):
            yield from part._read_coordinates(axis, [number for _, number, _ in located])


class JoinedTrajectories(View):
    """Several sets of one system, one after the other; the given fields are those that all of them have."""

    def __init__(self, parts: Sequence[TrajectorySet]) -> None:
        """Join ``parts``.

        Raises:
            DataError: the parts differ in system, fields or units.
        """
        first = parts[0]
        for part in parts[1:]:
            expected, came = ((s.system, s.fields, s.units) for s in (first, part))
            if came != expected:
                raise DataError(
                    f"{part.sources[0]} cannot be joined to {first.sources[0]}: expected (system, fields, units) "
                    f"{expected}, got {came}; open them as two data sets."
                )
        self.system, self.fields, self.units = first.system, first.fields, first.units
        lengths, times = {part.length_unit for part in parts}, {part.time_unit for part in parts}
        self.length_unit = first.length_unit if len(lengths) == 1 else "?"
        self.time_unit = first.time_unit if len(times) == 1 else "?"
        self.given = tuple(name for name in first.given if all(name in part.given for part in parts))
        self.given_in_time = frozenset(name for part in parts for name in part.given_in_time)
        self.trajectories = tuple(trajectory for part in parts for trajectory in part.trajectories)
        self.made_of = tuple(parts)
        self._firsts = tuple(accumulate((part.num_trajectories for part in parts[:-1]), initial=0))

    def _located(self, trajectory: int) -> tuple[TrajectorySet, int, int]:
        part = bisect_right(self._firsts, trajectory) - 1
        return self.made_of[part], trajectory - self._firsts[part], 0


class CoarsenedTrajectories(View):
    """The trajectories of a set at every n-th frame, with means over blocks of cells.

    A model trained on one grid and one time step fails on others. Coarser copies of the data add grids and
    time steps without another simulation.

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
        self._show(source)
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

    def _read_frames(self, trajectory: int, start: int, stop: int, cells: Cells) -> np.ndarray:
        return self._coarse(partial(self._source._read_frames, trajectory), trajectory, start, stop, cells)

    def _read_given(self, trajectory: int, name: str, start: int, stop: int, cells: Cells) -> np.ndarray:
        return self._coarse(partial(self._source._read_given, trajectory, name), trajectory, start, stop, cells)

    def _read_coordinates(self, axis: str, trajectories: Sequence[int]) -> Iterator[Coordinates | None]:
        yield from [None] * len(trajectories)

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


_NAME = re.compile(r"(.*), frames (\d+) to (\d+)", re.DOTALL)


@dataclass(frozen=True)
class Span:
    """The frames of a trajectory or of one of its blocks, which the name tells.

    Attributes:
        trajectory: name of the whole trajectory.
        first: the first of the frames.
        last: the last of the frames, infinite for a whole trajectory.
    """

    trajectory: str
    first: int = 0
    last: int | float = math.inf

    @classmethod
    def named(cls, name: str) -> Span:
        """Return the frames that the name of a trajectory or of a block stands for."""
        match = _NAME.fullmatch(name)
        return cls(match[1], int(match[2]), int(match[3])) if match else cls(name)

    @property
    def name(self) -> str:
        """The name of the trajectory or block."""
        return f"{self.trajectory}, frames {self.first} to {self.last}" if self.is_block else self.trajectory

    @property
    def is_block(self) -> bool:
        """Whether these are the frames of a block."""
        return self.last < math.inf

    def meets(self, other: Span) -> bool:
        """Whether both have frames in common."""
        return self.trajectory == other.trajectory and self.first <= other.last and other.first <= self.last


class TimeBlocks(View):
    """The blocks of each trajectory of a set, consecutive frames to train, validate and test on; no window spans a cut.

        frames  0 ................ 799 | 800 .. 899 | 900 .. 999
                train                  | valid      | test

    Attributes:
        whole: the set that is cut.
        wholes: number of each block's trajectory in that set.
    """

    def __init__(self, whole: TrajectorySet, cuts: Sequence[Sequence[tuple[Span, Part | None]]]) -> None:
        """Cut the trajectories of ``whole`` into the blocks of each, and their parts; one without blocks stays whole."""
        self._show(whole)
        blocks = [
            (number, span.first, replace(about, name=span.name, num_frames=int(span.last) - span.first + 1, split=part))
            if span.is_block
            else (number, 0, about)
            for number, (about, spans) in enumerate(zip(whole.trajectories, cuts, strict=True))
            for span, part in spans or [(Span(about.name), about.split)]
        ]
        self.whole = whole
        self.wholes, self._firsts, self.trajectories = zip(*blocks, strict=True)

    @classmethod
    def by_shares(cls, whole: TrajectorySet, fractions: Sequence[float]) -> TimeBlocks:
        """Cut the frames of each trajectory into shares of train, valid and test, in this order.

        Raises:
            DataError: the fractions are invalid, the files state the part of a trajectory, or a trajectory has fewer frames
                than there are parts.
        """
        check_fractions(fractions)
        return cls(whole, [[*_spans(about, fractions)] for about in whole.trajectories])

    @property
    def sources(self) -> tuple[Path, ...]:
        """The files of the set that is cut."""
        return self.whole.sources

    def _located(self, trajectory: int) -> tuple[TrajectorySet, int, int]:
        return self.whole, self.wholes[trajectory], self._firsts[trajectory]

    def _read_coordinates(self, axis: str, trajectories: Sequence[int]) -> Iterator[Coordinates | None]:
        for number, found in zip(trajectories, super()._read_coordinates(axis, trajectories), strict=True):
            first, stop = self._firsts[number], self._firsts[number] + self.trajectories[number].num_frames
            yield replace(found, values=found.values[first:stop]) if found and axis == "time" else found


def _spans(about: Trajectory, fractions: Sequence[float]) -> Iterator[tuple[Span, Part]]:
    """Yield the frames of each part of a trajectory that has a share, and the part."""
    if about.split is not None:
        raise DataError(
            f"{about.label}: split_by: time cuts only trajectories whose part is left open, but its files or their "
            f"description say that it is for {about.split}; leave out split_by, or put what you want to cut into another set."
        )
    if about.num_frames < (num_parts := sum(fraction > 0 for fraction in fractions)):
        raise DataError(
            f"{about.label}: expected at least {num_parts} frames to cut in time, one for each part, got {about.num_frames}; "
            "leave out split_by, or put this trajectory's files into another set."
        )
    sizes = sizes_of(about.num_frames, fractions)
    for part, size, end in zip(PARTS, sizes, accumulate(sizes), strict=True):
        if size:
            yield Span(about.name, end - size, end - 1), part
