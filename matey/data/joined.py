"""Several sets of one system as one."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate, groupby
from operator import itemgetter

import numpy as np

from matey.data.trajectories import Cells, Coordinates, DataError, TrajectorySet


class JoinedTrajectories(TrajectorySet):
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

    def chunk(self, trajectory: int) -> tuple[int, int, int] | None:
        """Return the chunk shape in the trajectory's own set."""
        part, number = self._located(trajectory)
        return part.chunk(number)

    def order(self, trajectory: int) -> tuple[int, int, int]:
        """Return the order of the axes in the trajectory's own set."""
        part, number = self._located(trajectory)
        return part.order(number)

    def _read_frames(self, trajectory: int, start: int, stop: int, cells: Cells) -> np.ndarray:
        part, number = self._located(trajectory)
        return part._read_frames(number, start, stop, cells)

    def _read_coordinates(self, axis: str, trajectories: Sequence[int]) -> Iterator[Coordinates | None]:
        for part, located in groupby(map(self._located, trajectories), key=itemgetter(0)):
            yield from part._read_coordinates(axis, [number for _, number in located])

    def _read_given(self, trajectory: int, name: str, start: int, stop: int, cells: Cells) -> np.ndarray:
        part, number = self._located(trajectory)
        return part._read_given(number, name, start, stop, cells)

    def _located(self, trajectory: int) -> tuple[TrajectorySet, int]:
        """Return the part of a trajectory, and its number there."""
        part = bisect_right(self._firsts, trajectory) - 1
        return self.made_of[part], trajectory - self._firsts[part]
