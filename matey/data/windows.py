"""Windows in time on trajectories: their number, an even spread, those that can share a batch, and all frames in turn."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from matey.data.time_blocks import Span
from matey.data.trajectories import DataError, Trajectory, TrajectorySet

GOLDEN = (5**0.5 - 1) / 2
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
        is_block = Span.named(trajectory.name).is_block
        remedy = "give its part more of data.split." if is_block else "leave this trajectory out."
        if trajectory.num_frames == 1 and not is_block:
            remedy += " Files of one snapshot each are described as such by concat: time (docs/data.md)."
        raise DataError(
            f"{trajectory.label}: expected at least {num_frames + follow} frames, {num_frames} of history and {follow} "
            f"to predict, got {trajectory.num_frames}; ask for fewer or {remedy}"
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
        fitting[first + int((GOLDEN * i + 0.5) % 1 * (end - first))] for i, (first, end) in enumerate(pairwise(edges))
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
    for start, stop in cut(about.num_frames, len(data.fields), about.grid):
        yield start, data.read(trajectory, start, stop)


def given_stretches(data: TrajectorySet, trajectory: int) -> Iterator[np.ndarray]:
    """Yield the given fields of a trajectory in stretches like those of `stretches`; one frame if all are constant in time."""
    about = data.trajectories[trajectory]
    for start, stop in cut(about.num_frames if data.varying else 1, len(data.given), about.grid):
        yield data.read_given(trajectory, start, stop)


def cut(num_frames: int, num_fields: int, grid: tuple[int, int, int]) -> Iterator[tuple[int, int]]:
    """Yield the first frame of each stretch, and the frame after its last."""
    length = max(1, VALUES_AT_ONCE // (num_fields * math.prod(grid)))
    for start in range(0, num_frames, length):
        yield start, min(start + length, num_frames)
