"""Reads windows into batches of whole fields, or the boxes of cells that a rank holds and nothing else of the files.

Axis legend: ``b`` sample, ``t`` time, ``f`` field, ``z y x`` grid axes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from matey.data.splits import Share, alone
from matey.data.trajectories import BadValuesError, Cells, DataError, Trajectory, TrajectorySet
from matey.data.windows import Window, alike
from matey.fields import BatchPart, Box, FieldBatch, Piece, Samples


def read_box(
    source: TrajectorySet,
    trajectory: int,
    start: int,
    stop: int,
    cells: tuple[slice, ...],
    axis: int = 0,
    *,
    given: bool = False,
) -> np.ndarray:
    """Read frames ``(t, f, z, y, x)`` of a box of cells, which may wrap around the domain at both of its ends.

    Raises:
        DataError: see ``TrajectorySet.read``.
    """
    if axis == len(cells):
        z, y, x = cells
        return (source.read_given if given else source.read)(trajectory, start, stop, (z, y, x))
    side, length = cells[axis], source.trajectories[trajectory].grid[axis]
    boxes = [(*cells[:axis], span, *cells[axis + 1 :]) for span in _spans(side, length)]
    parts = [read_box(source, trajectory, start, stop, box, axis + 1, given=given) for box in boxes]
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=axis + 2)


def _spans(side: slice, length: int) -> list[slice]:
    """Return the spans of an axis of ``length`` cells that a side takes, which may go on at the axis' other end."""
    turns = range(side.start // length * length, side.stop, length)
    return [slice(max(side.start - turn, 0), min(side.stop - turn, length)) for turn in turns]


AT_ONCE = 2**26  # values that are read at once where windows are checked


def read_windows(sets: Sequence[TrajectorySet], windows: Sequence[Window], num_frames: int) -> list[FieldBatch]:
    """Read a micro-batch: one FieldBatch for all windows of the same system, fields, grid, spacing and boundaries.

    Batches are in the order of their first windows, and the samples of a batch in the order of their windows.

    Raises:
        DataError: see ``TrajectorySet.read``.
    """
    parts = read_parts(sets, windows, num_frames, all_cells)
    groups = alike(sets, windows)
    return [_whole(sets, group[0], part) for group, part in zip(groups, parts, strict=True)]


def all_cells(batches: Sequence[Samples]) -> list[list[Box]]:
    """Return a box of all cells of each sample, as ranks do that share out nothing."""
    found = []
    for batch in batches:
        _, z, y, x = (slice(0, size) for size in batch.window)
        found.append([(sample, (z, y, x)) for sample in range(batch.number)])
    return found


def _whole(sets: Sequence[TrajectorySet], first: Window, part: BatchPart) -> FieldBatch:
    """Return the batch of a part that holds all cells of every sample, of which the ``first`` is a window of ``sets``."""
    samples, pieces = part.samples, part.pieces
    return FieldBatch(
        system=samples.system,
        fields=samples.fields,
        history=_stacked(piece.history for piece in pieces),  # (b, t, f, z, y, x)
        lead_time=samples.lead_time,
        target=_stacked(piece.target for piece in pieces) if part.has_target else None,
        spacing=sets[first.set_index].trajectories[first.trajectory].spacing,
        periodic=samples.periodic,
        draw=samples.draw,
        given_fields=samples.given_fields,
        given=_stacked(piece.given for piece in pieces) if samples.given_fields else None,
        parameters=samples.parameters,
        conserved=samples.conserved,
    )


def _stacked(values: Iterable[Tensor | None]) -> Tensor:
    return torch.stack([value for value in values if value is not None])


def read_history(
    data: TrajectorySet, trajectories: Sequence[int], start: int, num_frames: int, follow: int = 1
) -> FieldBatch:
    """Read the frames from ``start`` on of trajectories that share grid, spacing and boundaries; there is no target.

    Given fields that vary in time are read in the ``follow`` frames after the history as well.

    Raises:
        DataError: see ``TrajectorySet.read``; or these given fields end earlier.
    """
    part = read_history_part(data, trajectories, start, num_frames, all_cells, follow)
    return _whole([data], Window(0, trajectories[0], start, 1), part)


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


def read_rollout(
    sets: Sequence[TrajectorySet], windows: Sequence[Window], num_frames: int, horizon: int
) -> tuple[FieldBatch, Tensor]:
    """Read the histories of windows that can share a batch, and the true frames that follow each.

    Args:
        sets: the data sets.
        windows: the windows, whose targets and lead times are those of the batch.
        num_frames: frames of history, ``T``.
        horizon: number of true frames.

    Returns:
        The histories; and ``(b, t, f, z, y, x)``, the frames after the last one of each, in physical units.
    """
    ends = [window.start + num_frames for window in windows]
    truth = [sets[w.set_index].read(w.trajectory, end, end + horizon) for w, end in zip(windows, ends, strict=True)]
    (part,) = read_parts(sets, windows, num_frames, all_cells, horizon)
    return _whole(sets, windows[0], part), torch.from_numpy(np.stack(truth))


def _parameters(abouts: Sequence[Trajectory]) -> dict[str, Tensor]:
    """Return the parameters of trajectories by name, ``(b,)``, NaN where one is missing or beyond the range of float32."""
    names = dict.fromkeys(name for about in abouts for name in about.parameters)
    found = {name: torch.tensor([about.parameters.get(name, np.nan) for about in abouts]) for name in names}
    return {name: values.masked_fill(values.isinf(), np.nan) for name, values in found.items()}


def given_in(source: TrajectorySet, window: Window, num_frames: int, total: int, cells: Cells) -> np.ndarray:
    """Read ``num_frames`` frames of the given fields in a box, and repeat the last one up to ``total`` frames.

    Nothing uses the repeated frames. The true ones may lie beyond the end of the trajectory, or hold bad values, which must not
    cause the window to be skipped.
    """
    stop = min(window.start + num_frames, source.trajectories[window.trajectory].num_frames)
    read = read_box(source, window.trajectory, window.start, stop, cells, given=True)
    missing = total - len(read)
    return read if len(read) == 1 or not missing else np.concatenate([read, *[read[-1:]] * missing])


ShareOut = Callable[[Sequence[Samples]], Sequence[Sequence[Box]]]
"""Function that returns the boxes to read of each batch of a micro-batch."""


def read_parts(
    sets: Sequence[TrajectorySet],
    windows: Sequence[Window],
    num_frames: int,
    share: ShareOut,
    follow: int = 1,
) -> list[BatchPart]:
    """Read a part of a micro-batch, and nothing else of its files; batches and samples are those of `read_windows`.

    Args:
        sets: the data sets.
        windows: the windows of the micro-batch.
        num_frames: frames of history, ``T``.
        share: function that returns the boxes to read of each batch.
        follow: frames after the histories up to which given fields are read, if that is beyond the targets.

    Raises:
        DataError: see ``TrajectorySet.read``.
    """
    groups = alike(sets, windows)
    samples = [samples_of_windows(sets, group, num_frames) for group in groups]
    found = []
    for group, about, boxes in zip(groups, samples, share(samples), strict=True):
        pieces = tuple(_read_pieces(sets, group, num_frames, boxes))
        found.append(_with_given(sets, group, BatchPart(about, pieces), follow))
    return found


def read_history_part(
    data: TrajectorySet,
    trajectories: Sequence[int],
    start: int,
    num_frames: int,
    share: ShareOut,
    follow: int = 1,
) -> BatchPart:
    """Read a part of the histories of `read_history`, and nothing else of the files.

    Raises:
        DataError: see `read_history`.
    """
    end = start + num_frames + follow
    for about in (data.trajectories[trajectory] for trajectory in trajectories):
        if data.varying and end > about.num_frames:
            raise DataError(
                f"{about.label}: expected {', '.join(data.varying)}, which the model is given, up to frame {end - 1}, got "
                f"{about.num_frames} frames; forecast fewer snapshots."
            )
    windows = [Window(0, trajectory, start, follow) for trajectory in trajectories]
    about_all = samples_of(data, trajectories, num_frames)
    pieces = tuple(_read_pieces([data], windows, num_frames, *share([about_all]), has_target=False))
    return _with_given([data], windows, BatchPart(about_all, pieces, has_target=False), follow)


def read_truth_part(
    sets: Sequence[TrajectorySet], windows: Sequence[Window], num_frames: int, step: int, share: ShareOut
) -> BatchPart:
    """Read a part of the true frames ``step`` snapshots after histories of ``num_frames`` frames, as histories of one frame.

    Raises:
        DataError: see ``TrajectorySet.read``.
    """
    about = samples_of_windows(sets, windows, 1)
    then = [replace(window, start=window.start + num_frames - 1 + step) for window in windows]
    return BatchPart(about, tuple(_read_pieces(sets, then, 1, *share([about]), has_target=False)), has_target=False)


def _read_pieces(
    sets: Sequence[TrajectorySet],
    windows: Sequence[Window],
    num_frames: int,
    boxes: Sequence[Box],
    *,
    has_target: bool = True,
) -> Iterator[Piece]:
    for sample, cells in boxes:
        window = windows[sample]
        read = partial(read_box, sets[window.set_index], window.trajectory, cells=cells)
        end = window.start + num_frames
        history = torch.from_numpy(read(window.start, end))
        target = torch.from_numpy(read(end - 1 + window.lead, end + window.lead)[0]) if has_target else None
        z, y, x = (side.start for side in cells)
        yield Piece(sample, (z, y, x), history, target)


def _with_given(sets: Sequence[TrajectorySet], windows: Sequence[Window], part: BatchPart, follow: int) -> BatchPart:
    """Return a part with the given fields in its boxes, up to all targets and ``follow`` frames after the histories."""
    source, num_frames = sets[windows[0].set_index], part.samples.window[0]
    if not source.given:
        return part
    total = num_frames + max(follow, *(window.lead for window in windows))
    pieces = []
    for piece in part.pieces:
        window = windows[piece.sample]
        end = num_frames + max(follow, window.lead)
        values = given_in(sets[window.set_index], window, end, total, piece.cells)
        pieces.append(replace(piece, given=torch.from_numpy(values)))
    return replace(part, pieces=tuple(pieces), num_given=total if source.varying else 1)
