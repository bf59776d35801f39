"""The request for forecasts: trajectories of one data set, from one frame of each, over a number of snapshots.

known         start ... start + T - 1                              T frames of each trajectory, read from its file
forecast                             step 1, 2, ... num_steps      each one snapshot after the previous one
truth         as far as the trajectory reaches; the forecast may continue beyond it
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from matey.data import DataError, Trajectory, TrajectorySet
from matey.data.reading import samples_of
from matey.data.trajectories import BadValuesError, Cells
from matey.data.windows import num_starts
from matey.samples import Samples

SAME_STEP = 1e-4  # relative; times in a file need not be exact multiples of a step


@dataclass(frozen=True)
class ForecastRequest:
    """Forecasts from one frame of trajectories that share grid, spacing, boundaries and time step.

    Attributes:
        data: the data set.
        trajectories: numbers of the trajectories in the set, counted from 0.
        start: first frame that the model is given.
        num_frames: number of frames that the model is given, ``T``.
        num_steps: number of snapshots to forecast.
        lead: number of snapshots predicted from the same history, see `matey.evaluate.rollout`; if it equals
            ``num_steps``, every frame is predicted from the known frames.
        conserve: whether frames keep the totals of conserved quantities, see `matey.evaluate.conservation`.
    """

    data: TrajectorySet
    trajectories: tuple[int, ...]
    start: int
    num_frames: int
    num_steps: int
    lead: int
    conserve: bool = False

    def __post_init__(self) -> None:
        """Raise DataError if trajectories lack the frames, or differ too much to share one array."""
        for number in self.trajectories:
            if not 0 <= number < self.data.num_trajectories:
                raise DataError(
                    f"{self.data.system} has {self.data.num_trajectories} trajectories here, numbered from 0; got {number}."
                )
            self._check_start(self.data.trajectories[number])
        self._check_alike()

    @property
    def first(self) -> Trajectory:
        """The first trajectory; all share its grid and time step."""
        return self.data.trajectories[self.trajectories[0]]

    @property
    def last_known(self) -> int:
        """Number of the last frame that the model is given."""
        return self.start + self.num_frames - 1

    def samples(self, first: int, end: int) -> Samples:
        """Return the metadata of the histories of some trajectories, before their frames are read."""
        return samples_of(self.data, self.trajectories[first:end], self.num_frames)

    def times(self, frames: np.ndarray) -> np.ndarray:
        """Return the times of frames: the data's own, continued beyond its end, or else times since the trajectories began."""
        own = self.data.coordinates("time", self.trajectories)
        if own is None:
            return frames * self.first.time_step
        beyond = np.maximum(0, frames - (len(own.values) - 1))  # snapshots beyond the data's last one
        times: np.ndarray = own.values[frames - beyond] + beyond * self.first.time_step
        return times

    @property
    def clock(self) -> str:
        """Words that follow "time" on the axis of a picture and explain it."""
        own = self.data.coordinates("time", self.trajectories)
        if own is None:
            return "since the trajectory began"
        return "as in the data" if own.unit in ("?", "1", "") else f"in {own.unit}"

    def num_true(self, trajectory: int) -> int:
        """Return how many of the forecast snapshots the trajectory itself has."""
        return min(self.num_steps, self.data.trajectories[trajectory].num_frames - 1 - self.last_known)

    def truth(self, trajectory: int, step: int, cells: Cells | None = None) -> np.ndarray | None:
        """Read the true frame ``(f, z, y, x)`` at a step, counted from 1, in a box of cells, by default in all.

        None beyond the end of the trajectory, and where a value is NaN or infinite: that must not end forecasts already made.
        """
        if step > self.num_true(trajectory):
            return None
        frame = self.last_known + step
        try:
            (only,) = self.data.read(trajectory, frame, frame + 1, cells)
        except BadValuesError:
            return None
        return np.asarray(only)

    def sources(self) -> list[object]:
        """Return marks of the inputs: sizes and times of files, and hashes of values in memory and in folders."""
        files = [source for source in self.data.inputs if source.exists()]
        told: list[object] = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
        if not files or any(file.is_dir() for file in files):  # a folder's size and time say nothing of a store
            told += [hashlib.sha256(values.tobytes()).hexdigest() for values in self.known_values()]
        return told

    def known_values(self) -> Iterator[np.ndarray]:
        """Read all inputs of the forecasts: the known frames, and the given fields up to the last step."""
        for number in self.trajectories:
            yield self.data.read(number, self.start, self.start + self.num_frames)
            if self.data.given:
                end = min(self.data.trajectories[number].num_frames, self.last_known + self.num_steps + 1)
                yield self.data.read_given(number, self.start, end)

    def batches(self, size: int, done: Sequence[int]) -> Iterator[tuple[int, int]]:
        """Yield which trajectories to forecast together: the place of the first one, and the place after the last one.

        Args:
            size: largest number of trajectories in a batch.
            done: number of snapshots already forecast for each trajectory; it is the same within a batch, and finished
                trajectories are left out.
        """
        first = 0
        while first < len(done):
            end = first + 1
            while end < len(done) and end - first < size and done[end] == done[first]:
                end += 1
            if done[first] < self.num_steps:
                yield first, end
            first = end

    def _check_start(self, about: Trajectory) -> None:
        last_start = num_starts(about, self.num_frames, 0) - 1
        if self.start > last_start:
            raise DataError(
                f"{about.label}: it has {about.num_frames} frames, so that {self.num_frames} of them can begin at 0 to "
                f"{last_start}; got start {self.start}."
            )

    def _check_alike(self) -> None:
        for number, what in product(self.trajectories, ("grid", "boundary", "spacing", "time_step")):
            own, first = (getattr(each, what) for each in (self.data.trajectories[number], self.first))
            is_measured = what in ("spacing", "time_step")
            if own != first and not (is_measured and np.allclose(own, first, rtol=SAME_STEP, atol=0)):
                raise DataError(
                    f"Trajectories that are forecast together need the same {what.replace('_', ' ')}, but number {number} has "
                    f"{own} and the first {first}; choose those that have the same with --trajectories."
                )
