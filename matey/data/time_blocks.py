"""A data set cut in time: the frames of each trajectory in consecutive blocks to train, validate and test on.

    frames  0 ................ 799 | 800 .. 899 | 900 .. 999
            train                  | valid      | test

A single long simulation can thus be trained on and scored. Each block is a trajectory of its own, so no window spans a cut.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path

import numpy as np

from matey.data.splits import check_fractions, sizes_of
from matey.data.trajectories import Cells, Coordinates, DataError, Trajectory, TrajectorySet
from matey.data.trajectory import PARTS

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


class TimeBlocks(TrajectorySet):
    """The blocks of each trajectory of a set.

    Attributes:
        whole: the set that is cut.
        wholes: number of each block's trajectory in that set.
    """

    def __init__(self, whole: TrajectorySet, fractions: Sequence[float], cuts: Sequence[Sequence[Span]] = ()) -> None:
        """Cut the trajectories of ``whole``.

        Args:
            whole: the set.
            fractions: shares of train, valid and test, in which the frames of each trajectory are cut in this order.
            cuts: blocks of each trajectory, one for each part that has a share, if they are known; by number of the
                trajectory, since names do not tell trajectories of several files apart. One without blocks stays whole.

        Raises:
            DataError: the fractions are invalid, the files state the part of a trajectory, or a trajectory has fewer frames
                than there are parts.
        """
        check_fractions(fractions)
        self.system, self.fields, self.units = whole.system, whole.fields, whole.units
        self.length_unit, self.time_unit = whole.length_unit, whole.time_unit
        self.given, self.given_in_time, self.left_out = whole.given, whole.given_in_time, whole.left_out
        blocks = [
            (number, first, block)
            for number, about in enumerate(whole.trajectories)
            for first, block in _blocks(about, fractions, cuts[number] if cuts else [*_spans(about, fractions)])
        ]
        self.whole, self.made_of = whole, (whole,)
        self.wholes = tuple(number for number, _, _ in blocks)
        self._firsts = tuple(first for _, first, _ in blocks)
        self.trajectories = tuple(block for _, _, block in blocks)

    @property
    def sources(self) -> tuple[Path, ...]:
        """The files of the set that is cut."""
        return self.whole.sources

    def chunk(self, trajectory: int) -> tuple[int, int, int] | None:
        """Return the chunk shape of the trajectory that is cut."""
        return self.whole.chunk(self.wholes[trajectory])

    def order(self, trajectory: int) -> tuple[int, int, int]:
        """Return the order of the axes of the trajectory that is cut."""
        return self.whole.order(self.wholes[trajectory])

    def _read_frames(self, trajectory: int, start: int, stop: int, cells: Cells) -> np.ndarray:
        first = self._firsts[trajectory]
        return self.whole._read_frames(self.wholes[trajectory], first + start, first + stop, cells)

    def _read_given(self, trajectory: int, name: str, start: int, stop: int, cells: Cells) -> np.ndarray:
        first = self._firsts[trajectory]
        return self.whole._read_given(self.wholes[trajectory], name, first + start, first + stop, cells)

    def _read_coordinates(self, axis: str, trajectories: Sequence[int]) -> Iterator[Coordinates | None]:
        of_each = self.whole._read_coordinates(axis, [self.wholes[number] for number in trajectories])
        for number, found in zip(trajectories, of_each, strict=True):
            first, stop = self._firsts[number], self._firsts[number] + self.trajectories[number].num_frames
            yield replace(found, values=found.values[first:stop]) if found and axis == "time" else found


def _blocks(about: Trajectory, fractions: Sequence[float], spans: Sequence[Span]) -> Iterator[tuple[int, Trajectory]]:
    """Yield the first frame of each block of a trajectory, and the block as a trajectory of its own."""
    if not spans:
        yield 0, about
        return
    parts = [part for part, fraction in zip(PARTS, fractions, strict=True) if fraction > 0]
    for part, span in zip(parts, spans, strict=True):
        assert isinstance(span.last, int)
        yield span.first, replace(about, name=span.name, num_frames=span.last - span.first + 1, split=part)


def _spans(about: Trajectory, fractions: Sequence[float]) -> Iterator[Span]:
    """Yield the frames of each part of a trajectory that has a share."""
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
    yield from (
        Span(about.name, end - size, end - 1) for size, end in zip(sizes, accumulate(sizes), strict=True) if size
    )
