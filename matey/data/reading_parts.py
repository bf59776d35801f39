"""Reads parts of windows: boxes of cells of histories, targets and given fields, and nothing else of the files.

Axis legend: ``b`` sample, ``t`` time, ``f`` field, ``z y x`` grid axes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from operator import itemgetter

import torch
from torch import Tensor

from matey.data.boxes import read_boxes
from matey.data.reading import given_in, histories_of, samples_of, samples_of_windows
from matey.data.trajectories import Cells, TrajectorySet
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
    pieces: list[Piece] = []
    for sample, cells in _by_sample(boxes):
        read = read_boxes(data, trajectories[sample], start, start + num_frames, cells)
        pieces += [
            Piece(sample, _first_cell(box), torch.from_numpy(values)) for box, values in zip(cells, read, strict=True)
        ]
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
    pieces: list[Piece] = []
    for sample, cells in _by_sample(boxes):
        window = windows[sample]
        at = window.start + num_frames - 1 + step
        read = read_boxes(sets[window.set_index], window.trajectory, at, at + 1, cells)
        pieces += [
            Piece(sample, _first_cell(box), torch.from_numpy(values)) for box, values in zip(cells, read, strict=True)
        ]
    return BatchPart(about, tuple(pieces), has_target=False)


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


def _with_given(sets: Sequence[TrajectorySet], windows: Sequence[Window], part: BatchPart, follow: int) -> BatchPart:
    """Return a part with the given fields in its boxes, up to all targets and ``follow`` frames after the histories."""
    source, num_frames = sets[windows[0].set_index], part.samples.window[0]
    if not source.given:
        return part
    total = num_frames + max(follow, *(window.lead for window in windows))
    given: list[Tensor] = []
    for sample, cells in _by_sample([(piece.sample, piece.cells) for piece in part.pieces]):
        window = windows[sample]
        end = num_frames + max(follow, window.lead)
        given += map(torch.from_numpy, given_in(sets[window.set_index], window, end, total, cells))
    pieces = (replace(piece, given=values) for piece, values in zip(part.pieces, given, strict=True))
    return replace(part, pieces=tuple(pieces), num_given=total if source.varying else 1)


def _by_sample(boxes: Sequence[Box]) -> Iterator[tuple[int, list[Cells]]]:
    for sample, of_sample in groupby(boxes, key=itemgetter(0)):
        yield sample, [cells for _, cells in of_sample]


def _first_cell(cells: tuple[slice, slice, slice]) -> tuple[int, int, int]:
    z, y, x = (side.start for side in cells)
    return z, y, x
