"""Draws the windows of the global batch of a training step; `matey.data.stream` reads them.

Nothing here has a state: a run needs only its step number to continue where it stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from matey.data.shuffled import shuffled
from matey.data.trajectories import BadValuesError, DataError, TrajectorySet
from matey.data.windows import Window, num_starts

# Most windows drawn in place of a bad one; if all of them are bad, the data has little to learn from.
_MAX_DRAWS = 100


class Mixture:
    """Several systems mixed by weight; the global batch of a step is a pure function of ``(seed, step)`` and its size.

    Attributes:
        train: indices of the training trajectories of each set.
        shares: share of the samples that comes from each set.
    """

    def __init__(
        self,
        sets: Sequence[TrajectorySet],
        train_trajectories: Sequence[Sequence[int]],
        weights: Sequence[float],
        num_frames: int,
        lead_max: int = 1,
        seed: int = 0,
        temperature: float = 0.0,
    ) -> None:
        """Mix the training trajectories of ``sets``; a set's share is its weight times its windows^temperature.

        Args:
            sets: the data sets of the run.
            train_trajectories: the trajectories of each set to draw from.
            weights: factor of each set's share of the samples.
            num_frames: frames of history, ``T``.
            lead_max: largest lead time in snapshots.
            seed: seed of all draws.
            temperature: exponent of the number of windows in the share of a set: 0 ignores sizes, 1 is proportional to them.

        Raises:
            DataError: a trajectory is shorter than ``num_frames + 1``, a set has nothing to draw from, or a weight is
                not positive.
        """
        if not len(sets) == len(train_trajectories) == len(weights) > 0:
            raise DataError(
                f"Expected trajectories and a weight for each of {len(sets)} data sets, "
                f"got {len(train_trajectories)} and {len(weights)}."
            )
        sizes = []
        for source, trajectories, weight in zip(sets, train_trajectories, weights, strict=True):
            if not 0 < weight < float("inf"):
                raise DataError(f"The weight of {source.system} must be positive, got {weight}; or leave the set out.")
            if len(trajectories) == 0:
                raise DataError(f"No trajectory of {source.system} is left for training; raise its train fraction.")
            sizes.append(sum(num_starts(source.trajectories[t], num_frames, follow=1) for t in trajectories))
        assert lead_max >= 1, f"lead_max is {lead_max}"
        self.sets = tuple(sets)
        self.num_frames = num_frames
        self.train = tuple(tuple(trajectories) for trajectories in train_trajectories)
        # Sizes are divided by the largest one, since its power alone could overflow.
        shares = np.asarray(weights) * (np.asarray(sizes) / max(sizes)) ** temperature
        self.shares = tuple((shares / shares.sum()).tolist())
        self._borders = np.cumsum(shares)[:-1] / np.sum(shares)
        self._lead_max = lead_max
        # The number of a draw decides what a sample skips (drop path), so it depends on the seed.
        self._first_draw = seed % 2**22 << 40
        self._seed = seed

    def global_batch(self, step: int, size: int, run_length: int = 1, slots: range | None = None) -> list[Window]:
        """Draw windows of one step, in random order; each is found without drawing the others.

        Systematic sampling sets the number of windows from each set: within one of ``size`` times the set's share in
        every step, and equal to it on average. The trajectory is uniform in its set, the lead time in 1 to ``lead_max``
        (or the longest that the trajectory allows), and the start among those that leave room for both.

        Args:
            step: the step.
            size: number of windows of the step, a multiple of ``run_length``.
            run_length: number of consecutive windows that come from one set. Sets are then drawn for whole runs of
                windows, and the counts above are counts of runs.
            slots: the windows to draw, by their places in the global batch; by default all.
        """
        assert size % run_length == 0, f"{size} windows in runs of {run_length}"
        num_runs = size // run_length
        chosen = np.asarray(range(size) if slots is None else slots, dtype=np.uint64)
        random = np.random.default_rng([self._seed, step])
        offset, key = random.random(), int(random.integers(2**63))
        points = (offset + shuffled(chosen // np.uint64(run_length), num_runs, key)) / num_runs
        set_indices = np.searchsorted(self._borders, points, side="right")
        return [
            self._draw(step, int(slot), 0, int(set_index), self._first_draw + step * size + int(slot))
            for slot, set_index in zip(chosen, set_indices, strict=True)
        ]

    def further(self, window: Window, frames: int) -> Window:
        """Move the target of a window ``frames`` frames on, at most to the last frame of its trajectory."""
        about = self.sets[window.set_index].trajectories[window.trajectory]
        return replace(window, lead=min(window.lead + frames, about.num_frames - self.num_frames - window.start))

    def in_place_of(
        self, window: Window, step: int, slot: int, is_sound: Callable[[Window], bool], further: int = 0
    ) -> Window:
        """Draw a sound window of the same set in place of one that holds NaN or infinity.

        The draw is a pure function of ``(seed, step, slot)`` and the data, so it is the same on every rank.

        Args:
            window: the window that holds NaN or infinity.
            step: the step.
            slot: the window's place in the global batch.
            is_sound: whether a window is free of NaN and infinity.
            further: frames by which the window's target moves on, see `further`.

        Raises:
            BadValuesError: many draws found no sound window.
        """
        for attempt in range(1, _MAX_DRAWS + 1):
            other = self.further(self._draw(step, slot, attempt, window.set_index, window.draw), further)
            if is_sound(other):
                return other
        source = self.sets[window.set_index]
        raise BadValuesError(
            f"{source.trajectories[window.trajectory].label}: expected windows free of NaN and infinity, but none of "
            f"{_MAX_DRAWS} drawn from {source.system} is; repair the data or leave the set out."
        )

    def _draw(self, step: int, slot: int, attempt: int, set_index: int, draw: int) -> Window:
        # Slots count from 1, since NumPy takes [seed, step, 0, 0] for [seed, step], which the step itself draws from.
        random = np.random.default_rng([self._seed, step, slot + 1, attempt])
        trajectory = self.train[set_index][random.integers(len(self.train[set_index]))]
        about = self.sets[set_index].trajectories[trajectory]
        lead = int(random.integers(1, min(self._lead_max, about.num_frames - self.num_frames), endpoint=True))
        start = int(random.integers(num_starts(about, self.num_frames, follow=lead)))
        return Window(set_index, trajectory, start, lead, draw)
