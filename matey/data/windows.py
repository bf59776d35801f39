"""Windows in time on trajectories, and the draw of those of a training step; `matey.data.stream` reads them.

Nothing here has a state: a run needs only its step number to continue where it stopped.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from matey.data.trajectories import BadValuesError, DataError, Trajectory, TrajectorySet

_GOLDEN_RATIO = (5**0.5 - 1) / 2
VALUES_AT_ONCE = 2**24


@dataclass(frozen=True)
class Window:
    """One sample: history = frames ``start .. start + T - 1``, target = frame ``start + T - 1 + lead``.

    Attributes:
        set_index: index of the data set among those of the run.
        trajectory: index of the trajectory in that set.
        start: first frame of the history.
        lead: snapshots from the last frame of the history to the target, at least 1.
        draw: number of the draw in the training stream that gave this window.
    """

    set_index: int
    trajectory: int
    start: int
    lead: int
    draw: int = 0


def num_starts(trajectory: Trajectory, num_frames: int, follow: int) -> int:
    """Return the number of frames at which a window of ``num_frames``, with ``follow`` frames after it, can start.

    Raises:
        DataError: the trajectory is too short for a single window.
    """
    starts = trajectory.num_frames - num_frames - follow + 1
    if starts < 1:
        raise DataError(
            f"{trajectory.label}: expected at least {num_frames + follow} frames, {num_frames} of history and {follow} "
            f"to predict, got {trajectory.num_frames}; ask for fewer (in an evaluation, by --leads 1), give its part more of "
            "data.split, or leave this trajectory out; files of one snapshot each are described as such by concat: time "
            "(docs/own_data.md)."
        )
    return starts


def spread_windows(
    trajectory_set: TrajectorySet,
    trajectories: Sequence[int],
    num_frames: int,
    lead: int,
    count: int,
    *,
    horizon: int = 0,
    set_index: int = 0,
) -> list[Window]:
    """Spread ``count`` windows evenly over all that fit, for validation and evaluation; nothing is left to chance.

    Args:
        trajectory_set: the set that the windows lie in.
        trajectories: indices of the trajectories to take windows from.
        num_frames: frames of history, ``T``.
        lead: lead time of every window.
        count: number of windows; all that fit, if there are fewer.
        horizon: number of frames that must follow the history, for rollouts.
        set_index: the ``set_index`` of the windows.

    Raises:
        DataError: a trajectory is shorter than one window.
    """
    assert lead >= 1, f"lead is {lead}"
    follow = max(lead, horizon)
    fitting = [
        Window(set_index, trajectory, start, lead)
        for trajectory in trajectories
        for start in range(num_starts(trajectory_set.trajectories[trajectory], num_frames, follow))
    ]
    count = min(count, len(fitting))
    # One window from each of ``count`` equal stretches. Windows in the middle of each would meet trajectories of one length at
    # the same few times (100 windows on 20 trajectories: at 5 times); the golden ratio spreads the times as well.
    edges = [i * len(fitting) // count for i in range(count + 1)] if count else []
    return [
        fitting[first + int((_GOLDEN_RATIO * i + 0.5) % 1 * (end - first))]
        for i, (first, end) in enumerate(pairwise(edges))
    ]


def alike(sets: Sequence[TrajectorySet], windows: Sequence[Window]) -> list[list[Window]]:
    """Group the windows that can share one FieldBatch, in order of first appearance."""
    groups: dict[tuple[object, ...], list[Window]] = {}
    for window in windows:
        source = sets[window.set_index]
        about = source.trajectories[window.trajectory]
        key = (
            source.system,
            source.fields,
            about.grid,
            about.spacing,
            about.periodic,
            about.conserved,
            source.given,
            source.given_in_time,
        )
        groups.setdefault(key, []).append(window)
    return list(groups.values())


def stretches(data: TrajectorySet, trajectory: int) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the first frame of each stretch of a trajectory, and its frames, as many as fit comfortably into memory."""
    about = data.trajectories[trajectory]
    length = max(1, VALUES_AT_ONCE // (len(data.fields) * math.prod(about.grid)))
    for start in range(0, about.num_frames, length):
        yield start, data.read(trajectory, start, min(start + length, about.num_frames))


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
            DataError: a trajectory is shorter than ``num_frames + 1``, or a set has nothing to draw from.
        """
        sizes = []
        for source, trajectories in zip(sets, train_trajectories, strict=True):
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
        chosen = np.asarray(range(size) if slots is None else slots)
        random = np.random.default_rng([self._seed, step])
        offset, order = random.random(), random.permutation(size // run_length)
        points = (offset + order[chosen // run_length]) / len(order)
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
