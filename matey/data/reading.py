"""Reads windows into batches of whole fields; for parts of them see `matey.data.reading_parts`.

Axis legend: ``b`` sample, ``t`` time, ``f`` field, ``z y x`` grid axes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from matey.data.boxes import read_box
from matey.data.share import Share, alone
from matey.data.trajectories import BadValuesError, Cells, DataError, Trajectory, TrajectorySet
from matey.data.windows import Window, alike
from matey.fields import FieldBatch
from matey.samples import Samples

AT_ONCE = 2**26  # values that are read at once where windows are checked


@dataclass(frozen=True)
class Rollout:
    """Histories and the true frames that follow them.

    Attributes:
        batch: the histories; target and lead time are those of the windows.
        truth: ``(b, t, f, z, y, x)``, the frames after the last one of each history, in physical units.
    """

    batch: FieldBatch
    truth: Tensor


def read_windows(sets: Sequence[TrajectorySet], windows: Sequence[Window], num_frames: int) -> list[FieldBatch]:
    """Read a micro-batch: one FieldBatch for all windows of the same system, fields, grid, spacing and boundaries.

    Batches are in the order of their first windows, and the samples of a batch in the order of their windows.

    Raises:
        DataError: see ``TrajectorySet.read``.
    """
    return [_read_batch(sets, group, num_frames) for group in alike(sets, windows)]


def read_history(
    data: TrajectorySet, trajectories: Sequence[int], start: int, num_frames: int, follow: int = 1
) -> FieldBatch:
    """Read the frames from ``start`` on of trajectories that share grid, spacing and boundaries; there is no target.

    Given fields that vary in time are read in the ``follow`` frames after the history as well.

    Raises:
        DataError: see ``TrajectorySet.read``; or these given fields end earlier.
    """
    windows = histories_of(data, trajectories, start, num_frames, follow)
    history = [data.read(trajectory, start, start + num_frames) for trajectory in trajectories]
    return _batch_of([data], windows, num_frames, history, follow).with_tensors(lead_time=torch.ones(len(history)))


def histories_of(
    data: TrajectorySet, trajectories: Sequence[int], start: int, num_frames: int, follow: int
) -> list[Window]:
    """Return histories as windows.

    Raises:
        DataError: given fields that vary in time end before the ``follow`` frames after the histories do.
    """
    end = start + num_frames + follow
    for about in (data.trajectories[trajectory] for trajectory in trajectories):
        if data.varying and end > about.num_frames:
            raise DataError(
                f"{about.label}: expected {', '.join(data.varying)}, which the model is given, up to frame {end - 1}, got "
                f"{about.num_frames} frames; forecast fewer snapshots."
            )
    return [Window(0, trajectory, start, follow) for trajectory in trajectories]


def samples_of(data: TrajectorySet, trajectories: Sequence[int], num_frames: int) -> Samples:
    """Return the metadata of histories of trajectories that share a grid, with a lead time of one snapshot."""
    return replace(
        samples_of_windows([data], [Window(0, number, 0, 1) for number in trajectories], num_frames), draw=None
    )


def samples_of_windows(sets: Sequence[TrajectorySet], windows: Sequence[Window], num_frames: int) -> Samples:
    """Return the metadata of windows that can share a batch, see `alike`."""
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
        given_fields=source.given,
        parameters=_parameters([sets[window.set_index].trajectories[window.trajectory] for window in windows]),
        conserved=about.conserved,
        chunk=source.chunk(windows[0].trajectory),
        order=source.order(windows[0].trajectory),
    )


def is_sound(sets: Sequence[TrajectorySet], window: Window, num_frames: int) -> bool:
    """Return whether a window and its given fields are free of NaN and infinity; a few layers are read at a time."""
    source, number = sets[window.set_index], window.trajectory
    grid, end = source.trajectories[number].grid, window.start + num_frames
    axis = next((axis for axis, size in enumerate(grid) if size > 1), 0)
    num_values = (num_frames + 1) * len(source.fields) + (num_frames + window.lead) * len(source.given)
    layers = max(AT_ONCE // (num_values * math.prod(grid[axis + 1 :])), 1)
    try:
        for first in range(0, grid[axis], layers):
            sides = [slice(0, size) for size in grid]
            sides[axis] = slice(first, min(first + layers, grid[axis]))
            z, y, x = sides
            source.read(number, window.start, end, (z, y, x))
            source.read(number, end - 1 + window.lead, end + window.lead, (z, y, x))
            if source.given:
                source.read_given(number, window.start, end + window.lead, (z, y, x))
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
            f"{sets[index].sources[0]}: expected windows free of NaN and infinity, but none of those "
            f"chosen from {sets[index].system} is; repair the data or leave the set out."
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


def _read_batch(
    sets: Sequence[TrajectorySet], windows: Sequence[Window], num_frames: int, follow: int = 1
) -> FieldBatch:
    """Read windows that can share a batch; of each, only the frames of its history and its target."""
    history, target = [], []
    for window in windows:
        source = sets[window.set_index]
        end = window.start + num_frames
        history.append(source.read(window.trajectory, window.start, end))
        target.append(source.read(window.trajectory, end - 1 + window.lead, end + window.lead)[0])
    draw = torch.tensor([window.draw for window in windows])  # (b)
    batch = _batch_of(sets, windows, num_frames, history, follow)
    return batch.with_tensors(target=_stack(target), draw=draw)  # target (b, f, z, y, x)


def _batch_of(
    sets: Sequence[TrajectorySet],
    windows: Sequence[Window],
    num_frames: int,
    history: Sequence[np.ndarray],
    follow: int,
) -> FieldBatch:
    """Return a batch without a target; given fields reach to all targets and ``follow`` frames after the histories."""
    source = sets[windows[0].set_index]
    abouts = [sets[window.set_index].trajectories[window.trajectory] for window in windows]
    total = num_frames + max(follow, *(window.lead for window in windows))
    ends = (num_frames + max(follow, window.lead) for window in windows)
    read = (
        given_in(sets[window.set_index], window, end, total, abouts[0].cells)
        for window, end in zip(windows, ends, strict=True)
    )
    given = list(read) if source.given else []
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
        conserved=abouts[0].conserved,
    )


def _parameters(abouts: Sequence[Trajectory]) -> dict[str, Tensor]:
    """Return the parameters of trajectories by name, ``(b,)``."""
    names = dict.fromkeys(name for about in abouts for name in about.parameters)
    return {name: torch.tensor([_number(about, name) for about in abouts]) for name in names}


def _number(about: Trajectory, name: str) -> float:
    """Return a parameter of a trajectory, NaN where it is missing or beyond the range of float32."""
    value = about.parameters.get(name, np.nan)
    return value if abs(value) <= np.finfo(np.float32).max else np.nan


def given_in(source: TrajectorySet, window: Window, num_frames: int, total: int, cells: Cells) -> np.ndarray:
    """Read ``num_frames`` frames of the given fields in a box, and repeat the last one up to ``total`` frames.

    Nothing uses the repeated frames. The true ones may lie beyond the end of the trajectory, or hold bad values, which must not
    cause the window to be skipped.
    """
    stop = min(window.start + num_frames, source.trajectories[window.trajectory].num_frames)
    read = read_box(source, window.trajectory, window.start, stop, cells, given=True)
    missing = total - len(read)
    return read if len(read) == 1 or not missing else np.concatenate([read, *[read[-1:]] * missing])


def _stack(frames: Sequence[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(frames))
