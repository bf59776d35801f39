"""Reads parts of windows: boxes of cells of histories, targets and given fields, and nothing else of the files.

Axis legend: ``b`` sample, ``t`` time, ``f`` field, ``z y x`` grid axes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch

from matey.data.boxes import read_box
from matey.data.reading import given_in, histories_of, samples_of, samples_of_windows
from matey.data.trajectories import TrajectorySet
from matey.data.windows import Window, alike
from matey.samples import BatchPart, Box, Piece, Samples

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
    windows = histories_of(data, trajectories, start, num_frames, follow)
    about = samples_of(data, trajectories, num_frames)
    (boxes,) = share([about])
    pieces = []
    for sample, cells in boxes:
        values = read_box(data, trajectories[sample], start, start + num_frames, cells)
        pieces.append(Piece(sample, _first_cell(cells), torch.from_numpy(values)))
    return _with_given([data], windows, BatchPart(about, tuple(pieces), has_target=False), follow)


def read_truth_part(
    sets: Sequence[TrajectorySet], windows: Sequence[Window], num_frames: int, step: int, share: ShareOut
) -> BatchPart:
    """Read a part of the true frames ``step`` snapshots after histories of ``num_frames`` frames, as histories of one frame.

    Raises:
        DataError: see ``TrajectorySet.read``.
    """
    about = samples_of_windows(sets, windows, 1)
    (boxes,) = share([about])
    pieces = []
    for sample, cells in boxes:
        window = windows[sample]
        at = window.start + num_frames - 1 + step
        values = read_box(sets[window.set_index], window.trajectory, at, at + 1, cells)
        pieces.append(Piece(sample, _first_cell(cells), torch.from_numpy(values)))
    return BatchPart(about, tuple(pieces), has_target=False)


def _read_pieces(
    sets: Sequence[TrajectorySet], windows: Sequence[Window], num_frames: int, boxes: Sequence[Box]
) -> Iterator[Piece]:
    for sample, cells in boxes:
        window = windows[sample]
        end = window.start + num_frames
        history, target = (
            torch.from_numpy(read_box(sets[window.set_index], window.trajectory, start, stop, cells))
            for start, stop in ((window.start, end), (end - 1 + window.lead, end + window.lead))
        )
        yield Piece(sample, _first_cell(cells), history, target[0])


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


def _first_cell(cells: tuple[slice, slice, slice]) -> tuple[int, int, int]:
    z, y, x = (side.start for side in cells)
    return z, y, x
