"""Reads windows into batches of fields, whole or in parts.

Axis legend: ``b`` sample, ``t`` time, ``f`` field, ``z y x`` grid axes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from operator import attrgetter, itemgetter

import numpy as np
import torch
from torch import Tensor

from matey.data.boxes import read_boxes
from matey.data.share import Share, alone
from matey.data.trajectories import BadValuesError, Cells, DataError, Trajectory, TrajectorySet
from matey.data.windows import Window, alike
from matey.fields import FieldBatch
from matey.samples import BatchPart, Box, Piece, Samples


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
    samples = [samples_of_windows(sets, group, num_frames) for group in groups]
    return [
        BatchPart(about, tuple(_read_pieces(sets, group, num_frames, boxes)))
        for group, about, boxes in zip(groups, samples, share(samples), strict=True)
    ]


def read_truth_part(
    sets: Sequence[TrajectorySet], windows: Sequence[Window], part: BatchPart, step: int
) -> list[Tensor]:
    """Read the true frame ``(f, z, y, x)`` so many snapshots after the histories of a part, in the box of each piece.

    Raises:
        DataError: see ``TrajectorySet.read``.
    """
    frames: list[Tensor] = []
    for sample, pieces in groupby(part.pieces, key=attrgetter("sample")):
        window = windows[sample]
        at = window.start + part.samples.window[0] - 1 + step
        boxes = [piece.cells for piece in pieces]
        read = read_boxes(sets[window.set_index], window.trajectory, at, at + 1, boxes)
        frames += [torch.from_numpy(values[0]) for values in read]
    return frames


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


def read_history_part(
    data: TrajectorySet,
    trajectories: Sequence[int],
    start: int,
    num_frames: int,
    share: Callable[[Sequence[Samples]], Sequence[Sequence[Box]]],
) -> BatchPart:
    """Read a part of what `read_history` reads, and nothing else of the files; what is given is not read.

    Raises:
        DataError: see ``TrajectorySet.read``.
    """
    about = samples_of(data, trajectories, num_frames)
    (boxes,) = share([about])
    pieces: list[Piece] = []
    for sample, cells in _by_sample(boxes):
        read = read_boxes(data, trajectories[sample], start, start + num_frames, cells)
        pieces += [
            Piece(sample, _first_cell(box), torch.from_numpy(values)) for box, values in zip(cells, read, strict=True)
        ]
    return BatchPart(about, tuple(pieces), has_target=False)


def samples_of(data: TrajectorySet, trajectories: Sequence[int], num_frames: int) -> Samples:
    """Return all that is known of histories of trajectories that share a grid, one snapshot before their targets."""
    return replace(
        samples_of_windows([data], [Window(0, number, 0, 1) for number in trajectories], num_frames), draw=None
    )


def samples_of_windows(sets: Sequence[TrajectorySet], windows: Sequence[Window], num_frames: int) -> Samples:
    """Return all that is known of windows that are alike."""
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


def _read_pieces(
    sets: Sequence[TrajectorySet], windows: Sequence[Window], num_frames: int, boxes: Sequence[Box]
) -> Iterator[Piece]:
    for sample, cells in _by_sample(boxes):
        window = windows[sample]
        end = window.start + num_frames
        history, target = (
            read_boxes(sets[window.set_index], window.trajectory, start, stop, cells)
            for start, stop in ((window.start, end), (end - 1 + window.lead, end + window.lead))
        )
        for box, before, after in zip(cells, history, target, strict=True):
            yield Piece(sample, _first_cell(box), torch.from_numpy(before), torch.from_numpy(after[0]))


def _by_sample(boxes: Sequence[Box]) -> Iterator[tuple[int, list[Cells]]]:
    for sample, of_sample in groupby(boxes, key=itemgetter(0)):
        yield sample, [cells for _, cells in of_sample]


def _first_cell(cells: tuple[slice, slice, slice]) -> tuple[int, int, int]:
    z, y, x = (side.start for side in cells)
    return z, y, x


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
        conserved=abouts[0].conserved,
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
    """Read the given fields of so many frames; beyond the end of the trajectory, where nothing uses it, the last one again."""
    stop = min(window.start + num_frames, source.trajectories[window.trajectory].num_frames)
    frames = source.read_given(window.trajectory, window.start, stop)
    missing = num_frames - len(frames)
    return frames if len(frames) == 1 or not missing else np.concatenate([frames, *[frames[-1:]] * missing])


def _stack(frames: Sequence[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(frames))
