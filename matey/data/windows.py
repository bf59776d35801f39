"""From trajectories to samples: windows in time, and reading windows into batches of fields.

Axis legend: ``b`` sample, ``t`` time, ``f`` field, ``z y x`` grid axes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from matey.data.share import Share, alone
from matey.data.trajectories import BadValuesError, DataError, Trajectory, TrajectorySet
from matey.fields import BatchPart, Box, FieldBatch, Piece, Samples

GOLDEN = (5**0.5 - 1) / 2


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


@dataclass(frozen=True)
class Rollout:
    """Histories and the true frames that follow them.

    Attributes:
        batch: the histories; target and lead time are those of the windows.
        truth: ``(b, t, f, z, y, x)``, the frames after the last one of each history, in physical units.
    """

    batch: FieldBatch
    truth: Tensor


def num_starts(trajectory: Trajectory, num_frames: int, follow: int) -> int:
    """Number of frames at which a window of ``num_frames``, with ``follow`` frames after it, can start.

    Raises:
        DataError: the trajectory is too short for a single window.
    """
    starts = trajectory.num_frames - num_frames - follow + 1
    if starts < 1:
        raise DataError(
            f"{trajectory.label}: expected at least {num_frames + follow} frames, {num_frames} of history and {follow} "
            f"to predict, got {trajectory.num_frames}; ask for fewer or leave this trajectory out."
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
    # One window from each of ``count`` equal stretches. At the middle of each, trajectories of one length would be met at the
    # same few times over and over (100 windows on 20 trajectories: at 5 times); the golden ratio spreads the times as well.
    edges = [i * len(fitting) // count for i in range(count + 1)] if count else []
    return [
        fitting[first + int((GOLDEN * i + 0.5) % 1 * (end - first))] for i, (first, end) in enumerate(pairwise(edges))
    ]


def read_windows(sets: Sequence[TrajectorySet], windows: Sequence[Window], num_frames: int) -> list[FieldBatch]:
    """Read a micro-batch: one FieldBatch for all windows of the same system, fields, grid, spacing and boundaries.

    Batches come in the order in which their first window comes, the samples of a batch in the order of their windows.

    Raises:
        DataError: see ``TrajectorySet.read``.
    """
    return [_read_batch(sets, group, num_frames) for group in alike(sets, windows)]


def read_parts(
    sets: Sequence[TrajectorySet],
    windows: Sequence[Window],
    num_frames: int,
    share: Callable[[Sequence[Samples]], Sequence[Sequence[Box]]],
) -> list[BatchPart]:
    """Read a part of a micro-batch, and nothing else of its files; batches and samples are those of `read_windows`.

    What is given besides the histories is not read.

    Args:
        sets: the data sets.
        windows: the windows of the micro-batch.
        num_frames: frames of history, ``T``.
        share: function that says which boxes of each batch to read.

    Raises:
        DataError: see ``TrajectorySet.read``.
    """
    groups = alike(sets, windows)
    samples = [_samples_of(sets, group, num_frames) for group in groups]
    return [
        BatchPart(about, tuple(_read_piece(sets, group[sample], num_frames, sample, cells) for sample, cells in boxes))
        for group, about, boxes in zip(groups, samples, share(samples), strict=True)
    ]


def read_history(
    data: TrajectorySet, trajectories: Sequence[int], start: int, num_frames: int, follow: int = 1
) -> FieldBatch:
    """Read the frames from ``start`` on of trajectories that share grid, spacing and boundaries; there is no target.

    What is given and varies in time is read in the ``follow`` frames after those as well.

    Raises:
        DataError: see ``TrajectorySet.read``; or what is given ends before.
    """
    windows = [Window(0, trajectory, start, follow) for trajectory in trajectories]
    varying, end = sorted(data.given_in_time.intersection(data.given)), start + num_frames + follow
    for about in (data.trajectories[trajectory] for trajectory in trajectories):
        if varying and end > about.num_frames:
            raise DataError(
                f"{about.label}: expected {', '.join(varying)}, which the model is given, up to frame {end - 1}, got "
                f"{about.num_frames} frames; forecast fewer snapshots."
            )
    history = [data.read(trajectory, start, start + num_frames) for trajectory in trajectories]
    return _batch_of([data], windows, num_frames, history, follow).with_tensors(lead_time=torch.ones(len(history)))


def is_sound(sets: Sequence[TrajectorySet], window: Window, num_frames: int) -> bool:
    """Read a window and return whether its history and target are free of NaN and infinity."""
    try:
        read_windows(sets, [window], num_frames)
    except BadValuesError:
        return False
    return True


def sound_windows(
    sets: Sequence[TrajectorySet], windows: Sequence[Window], num_frames: int, share: Share = alone
) -> list[Window]:
    """Read windows, shared out over ranks by ``share``, and return those that are free of NaN and infinity.

    Raises:
        BadValuesError: every window of some set holds NaN or infinity.
    """
    are_sound = share(lambda window: is_sound(sets, window, num_frames), windows)
    sound = [window for window, is_so in zip(windows, are_sound, strict=True) if is_so]
    for index in {window.set_index for window in windows} - {window.set_index for window in sound}:
        raise BadValuesError(
            f"{sets[index].sources[0]}: expected windows free of NaN and infinity, but none is "
            f"among those chosen of {sets[index].system}; mend the data or leave the set out."
        )
    return sound


def read_rollouts(
    sets: Sequence[TrajectorySet], windows: Sequence[Window], num_frames: int, horizon: int
) -> list[Rollout]:
    """Read histories with the ``horizon`` true frames that follow each, grouped and ordered as by ``read_windows``."""
    rollouts = []
    for group in alike(sets, windows):
        ends = [window.start + num_frames for window in group]
        truth = [sets[w.set_index].read(w.trajectory, end, end + horizon) for w, end in zip(group, ends, strict=True)]
        rollouts.append(Rollout(_read_batch(sets, group, num_frames, horizon), _stack(truth)))
    return rollouts


def alike(sets: Sequence[TrajectorySet], windows: Sequence[Window]) -> list[list[Window]]:
    """Windows that can share one FieldBatch, in order of first appearance."""
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
            source.given,
            source.given_in_time,
        )
        groups.setdefault(key, []).append(window)
    return list(groups.values())


def _read_batch(
    sets: Sequence[TrajectorySet], windows: Sequence[Window], num_frames: int, follow: int = 1
) -> FieldBatch:
    """Read windows that are alike; of each, the frames of its history and its target only."""
    history, target = [], []
    for window in windows:
        source = sets[window.set_index]
        end = window.start + num_frames
        history.append(source.read(window.trajectory, window.start, end))
        target.append(source.read(window.trajectory, end - 1 + window.lead, end + window.lead)[0])
    draw = torch.tensor([window.draw for window in windows])  # (b)
    batch = _batch_of(sets, windows, num_frames, history, follow)
    return batch.with_tensors(target=_stack(target), draw=draw)  # target (b, f, z, y, x)


def _samples_of(sets: Sequence[TrajectorySet], windows: Sequence[Window], num_frames: int) -> Samples:
    source = sets[windows[0].set_index]
    about = source.trajectories[windows[0].trajectory]
    return Samples(
        system=source.system,
        fields=source.fields,
        window=(num_frames, *about.grid),
        dtype=torch.float32,
        lead_time=torch.tensor([window.lead for window in windows], dtype=torch.float32),
        periodic=about.periodic,
        draw=torch.tensor([window.draw for window in windows]),
        parameters=_parameters([sets[window.set_index].trajectories[window.trajectory] for window in windows]),
    )


def _read_piece(
    sets: Sequence[TrajectorySet], window: Window, num_frames: int, sample: int, cells: tuple[slice, slice, slice]
) -> Piece:
    source, end = sets[window.set_index], window.start + num_frames
    history = _read_box(source, window.trajectory, window.start, end, cells)
    target = _read_box(source, window.trajectory, end - 1 + window.lead, end + window.lead, cells)[0]
    z, y, x = (side.start for side in cells)
    return Piece(sample, (z, y, x), torch.from_numpy(history), torch.from_numpy(target))


def _read_box(
    source: TrajectorySet, trajectory: int, start: int, stop: int, cells: tuple[slice, ...], axis: int = 0
) -> np.ndarray:
    """Read a box of cells that may go on at the other side of the domain."""
    if axis == len(cells):
        z, y, x = cells
        return source.read(trajectory, start, stop, (z, y, x))
    side, length = cells[axis], source.trajectories[trajectory].grid[axis]
    turns = range(side.start // length * length, side.stop, length)
    spans = [slice(max(side.start - turn, 0), min(side.stop - turn, length)) for turn in turns]
    parts = [
        _read_box(source, trajectory, start, stop, (*cells[:axis], span, *cells[axis + 1 :]), axis + 1)
        for span in spans
    ]
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=axis + 2)


def _batch_of(
    sets: Sequence[TrajectorySet],
    windows: Sequence[Window],
    num_frames: int,
    history: Sequence[np.ndarray],
    follow: int,
) -> FieldBatch:
    """Return a batch without a target, with what is given up to all targets and ``follow`` frames after the histories."""
    source = sets[windows[0].set_index]
    abouts = [sets[window.set_index].trajectories[window.trajectory] for window in windows]
    follow = max(follow, *(window.lead for window in windows))
    given = [_given(sets[window.set_index], window, num_frames + follow) for window in windows] if source.given else []
    return FieldBatch(
        system=source.system,
        fields=source.fields,
        history=_stack(history),  # (b, t, f, z, y, x)
        lead_time=torch.tensor([float(window.lead) for window in windows]),  # (b)
        spacing=abouts[0].spacing,
        periodic=abouts[0].periodic,
        given_fields=source.given,
        given=_stack(given) if given else None,
        parameters=_parameters(abouts),
    )


def _parameters(abouts: Sequence[Trajectory]) -> dict[str, Tensor]:
    """Return the parameters of trajectories by name, ``(b,)``."""
    names = dict.fromkeys(name for about in abouts for name in about.parameters)
    return {name: torch.tensor([_number(about, name) for about in abouts]) for name in names}


def _number(about: Trajectory, name: str) -> float:
    """Return a parameter of a trajectory, NaN where it has none or none that a float32 holds."""
    value = about.parameters.get(name, np.nan)
    return value if abs(value) <= np.finfo(np.float32).max else np.nan


def _given(source: TrajectorySet, window: Window, num_frames: int) -> np.ndarray:
    """Read what is given in so many frames; beyond the end of the trajectory, where nobody looks, the last one again."""
    stop = min(window.start + num_frames, source.trajectories[window.trajectory].num_frames)
    frames = source.read_given(window.trajectory, window.start, stop)
    missing = num_frames - len(frames)
    return frames if len(frames) == 1 or not missing else np.concatenate([frames, *[frames[-1:]] * missing])


def _stack(frames: Sequence[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(frames))
