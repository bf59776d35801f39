"""Moves what ranks have read along the slowest axis of a file to the ranks that hold it, in one exchange, before all else.

Ranks hold layers along ``z``, or in the plane along ``y``. In a file whose slowest axis is ``x``, such as The Well's, such a
layer is scattered, so that each rank would read nearly all of the file:

       y  1 1 1 1     held: rank 0 needs the lower half
       |  0 0 0 0
       '-----> x      in the file: column after column
       y  0 0 1 1     read: rank 0 reads the left columns, and sends their upper half to rank 1
       |  0 0 1 1

Where every rank reads whole samples, it holds what it has read, and nothing is sent.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from matey.model.sequence_group import Exchange, RankGroup
from matey.samples import IN_ORDER, BatchPart, Box, Piece
from matey.tokens.parts import BrickShare, Sharing
from matey.tokens.patches import Patch

Shared = tuple[int, tuple[int, int], list[slice]]
"""Number of a batch; numbers of a box that is read and of one that is held; cells that both have."""

READ, HELD = 0, 1


def as_held(parts: list[BatchPart], brick: Patch, ranks: RankGroup, exchange: Exchange) -> None:
    """Replace what a rank has read of a micro-batch by what it holds of it; all ranks of the group call together.

    Args:
        parts: the boxes of each batch that this rank has read, as `BrickShare` says. The list is changed, so that what was
            read is released before other values come.
        brick: the coarsest patch.
        ranks: the group of ranks that share the samples.
        exchange: exchange between the ranks.
    """
    samples, everyone, me = [part.samples for part in parts], range(ranks.size), ranks.place
    scattered = [number for number, about in enumerate(samples) if about.is_scattered]
    if not scattered:
        return
    sharing = Sharing.share_out(samples, brick, ranks.size)
    read = [BrickShare(brick, rank, ranks.size)(samples) for rank in everyone]
    held = [sharing.boxes(samples, rank) for rank in everyone]
    moving = [number for number in scattered if any(read[rank][number] != held[rank][number] for rank in everyone)]
    for number in scattered:
        parts[number] = replace(parts[number], samples=replace(samples[number], order=IN_ORDER))
    if not moving:
        return

    def shared(reader: int, holder: int) -> list[Shared]:
        return [each for number in moving for each in _shared(number, read[reader][number], held[holder][number])]

    values, send = _packed(parts, [shared(me, holder) for holder in everyone])
    for number in moving:  # what was read is released here, before other values come
        parts[number] = replace(parts[number], pieces=tuple(_empty(parts[number], box) for box in held[me][number]))
    places = [_views(parts, shared(reader, me), HELD) for reader in everyone]
    receive = [sum(view.numel() for view in of_rank) for of_rank in places]
    for view, came in _laid_out(places, exchange.swap(values, send, receive)):
        view.copy_(came)


def _shared(batch: int, read: Sequence[Box], held: Sequence[Box]) -> Iterator[Shared]:
    for one, (sample, cells) in enumerate(read):
        for other, (of_other, wanted) in enumerate(held):
            sides = [slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(cells, wanted, strict=True)]
            if sample == of_other and all(side.start < side.stop for side in sides):
                yield batch, (one, other), sides


def _packed(parts: Sequence[BatchPart], shared: Sequence[Sequence[Shared]]) -> tuple[Tensor, list[int]]:
    """Return the values that go to the ranks, in their order, and how many go to each."""
    views = [_views(parts, of_rank, READ) for of_rank in shared]
    send = [sum(view.numel() for view in of_rank) for of_rank in views]
    values = torch.empty(sum(send), dtype=parts[0].samples.dtype)
    for view, goes in _laid_out(views, values):
        goes.copy_(view)
    return values, send


def _views(parts: Sequence[BatchPart], shared: Sequence[Shared], which: int) -> list[Tensor]:
    """Return the values in shared cells, of the boxes that were read or of those that are held."""
    found: list[Tensor] = []
    for batch, boxes, cells in shared:
        piece = parts[batch].pieces[boxes[which]]
        z, y, x = (slice(side.start - first, side.stop - first) for side, first in zip(cells, piece.start, strict=True))
        of_piece = (piece.history, piece.target, piece.given)
        found += [values[..., z, y, x] for values in of_piece if values is not None]
    return found


def _laid_out(views: Sequence[Sequence[Tensor]], buffer: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield views, and parts of a buffer of their shape, one after the other."""
    every = [view for of_rank in views for view in of_rank]
    for view, part in zip(every, buffer.split([view.numel() for view in every]), strict=True):
        yield view, part.view(view.shape)


def _empty(part: BatchPart, box: Box) -> Piece:
    """Return a piece of a part without its values."""
    (sample, cells), about = box, part.samples
    num_fields, sizes = len(about.fields), [side.stop - side.start for side in cells]
    z, y, x = (side.start for side in cells)
    return Piece(
        sample,
        (z, y, x),
        torch.empty(about.window[0], num_fields, *sizes, dtype=about.dtype),
        torch.empty(num_fields, *sizes, dtype=about.dtype) if part.has_target else None,
        torch.empty(part.num_given, len(about.given_fields), *sizes, dtype=about.dtype) if part.num_given else None,
    )
