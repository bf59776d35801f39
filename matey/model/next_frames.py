"""Rollouts in which no rank has a field whole: predicted tiles are sent back to the ranks that hold their boxes.

    parts of histories --> prepared, together --> each rank predicts the cells of its tokens
            ^                                                  |
            '---- newest frames of the same boxes <------ tiles, sent back

The boxes that a rank holds stay the same, while tokens, and with them the rank that predicts a cell, change between frames.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product
from typing import cast

import torch
from einops import rearrange
from torch import Tensor

from matey.model.forecast import Forecast
from matey.model.sequence_group import Exchange, RankGroup
from matey.samples import BatchPart, Box, Piece, Samples
from matey.tokens.parts import Sharing
from matey.tokens.patches import Patch, parts_along
from matey.tokens.tiles import Tiles

Frames = list[Tensor]
"""Values ``(..., z, y, x)`` in the box of each piece of a part."""

Sides = Sequence[slice]
"""A box of cells along ``z, y, x``."""


def moved_on(part: BatchPart, frames: Sequence[Tensor], num_new: int) -> BatchPart:
    """Return a part ``num_new`` snapshots later.

    Args:
        part: the part.
        frames: frames ``(t, f, z, y, x)`` that follow, or the newest of them, in the box of each piece.
        num_new: number of snapshots.
    """
    first = num_new if part.num_given > 1 else 0
    later = (
        replace(
            piece,
            history=torch.cat([piece.history, new])[-len(piece.history) :],
            given=None if piece.given is None else piece.given[first:],
        )
        for piece, new in zip(part.pieces, frames, strict=True)
    )
    return replace(part, pieces=tuple(later), num_given=part.num_given - first)


def inside(piece: Piece, values: Tensor, samples: Samples) -> Tensor:
    """Return the values ``(..., z, y, x)`` in the box of a piece that lie in the domain; other boxes hold the rest too."""
    if piece.own is not None:
        z_own, y_own, x_own = piece.own
        return values[..., z_own, y_own, x_own]
    z, y, x = (length - first for length, first in zip(samples.window[1:], piece.start, strict=True))
    return values[..., :z, :y, :x]


def predicted(
    forecasts: Sequence[Forecast], parts: Sequence[BatchPart], brick: Patch, ranks: RankGroup, exchange: Exchange
) -> list[Frames]:
    """Return the predicted frame ``(f, z, y, x)`` in the box of each piece; all ranks of the group call together.

    Args:
        forecasts: forecasts of the micro-batch.
        parts: this rank's part of each batch.
        brick: the coarsest patch.
        ranks: the group of ranks that share the samples.
        exchange: exchange between the ranks.
    """
    samples = [part.samples for part in parts]
    sharing, boxes = Sharing.share_out(samples, brick, ranks.size), boxes_of_ranks(samples, brick, ranks.size)
    rows, values = _sent_back(forecasts, parts, sharing, ranks, exchange)
    found = []
    for number, (part, forecast) in enumerate(zip(parts, forecasts, strict=True)):
        first, end = sharing.bounds[number][ranks.place : ranks.place + 2]
        bricks = _bricks_of(rows[number], values[number], cast(Tiles, forecast.tiles), brick, first, end)
        frames = list(_in_pieces(bricks, part, brick))
        found.append(continued(frames, part, boxes[number], ranks, exchange))
    return found


def _sent_back(
    forecasts: Sequence[Forecast], parts: Sequence[BatchPart], sharing: Sharing, ranks: RankGroup, exchange: Exchange
) -> tuple[list[Tensor], list[Tensor]]:
    """Send tiles to the ranks that hold their bricks; return the rows ``(m,)`` and values that came, for each batch."""
    ways, num_batches = ranks.size, len(parts)
    counts, rows, values = torch.zeros(ways, num_batches, dtype=torch.long), [], []
    for number, (forecast, part) in enumerate(zip(forecasts, parts, strict=True)):
        own = cast(Tiles, forecast.tiles)
        holder = torch.searchsorted(
            torch.tensor(sharing.bounds[number][1:]), own.in_patches(sharing.brick).cpu(), right=True
        )
        counts[:, number] = torch.bincount(holder, minlength=ways)
        # One rank predicts a cell; in a tile that several ranks predict, each adds zero to the cells of the others.
        tiles = forecast.values.where(forecast.own[:, None], 0).to("cpu", part.samples.dtype)
        order, sizes = holder.argsort(stable=True), counts[:, number].tolist()
        rows.append(own.row.cpu().long()[order].split(sizes))
        values.append(tiles[order].split(sizes))
    of_all = exchange.gather(counts.flatten(), [counts.numel()] * ways).view(ways, ways, num_batches)
    came = of_all[:, ranks.place]  # from each rank, of each batch
    shapes = [tuple(of_batch[0].shape[1:]) for of_batch in values]
    widths = torch.tensor([math.prod(shape) for shape in shapes])
    found_rows = _swapped(rows, counts, came, torch.ones_like(widths), exchange)
    found_values = _swapped(values, counts, came, widths, exchange)
    return found_rows, [flat.view(-1, *shape) for flat, shape in zip(found_values, shapes, strict=True)]


def _swapped(
    items: Sequence[Sequence[Tensor]], sent: Tensor, came: Tensor, widths: Tensor, exchange: Exchange
) -> list[Tensor]:
    """Exchange items, by batch and receiver, of ``widths`` numbers each; return the numbers that came for each batch."""
    send, receive = ((counts * widths).sum(dim=1).tolist() for counts in (sent, came))
    flat = torch.cat([item.flatten() for of_rank in zip(*items, strict=True) for item in of_rank])
    found = exchange.swap(flat, send, receive).split((came * widths).flatten().tolist())
    return [torch.cat(found[batch :: len(widths)]) for batch in range(len(widths))]


def _bricks_of(row: Tensor, values: Tensor, tiles: Tiles, brick: Patch, first: int, end: int) -> Tensor:
    """Assemble tiles ``(m, f, z, y, x)`` of some rows ``(m,)`` to the bricks ``first`` to ``end``, ``(k, f, z, y, x)``."""
    ratio = parts_along(brick, tiles.tile)
    number, *places = torch.unravel_index(row, tiles.grid)
    for place, size, r in zip(places, tiles.frames.grid_of(brick)[1:], ratio, strict=True):
        number = number * size + place // r
    at = number - first
    for place, r in zip(places, ratio, strict=True):
        at = at * r + place % r
    bricks = values.new_zeros((end - first) * math.prod(ratio), *values.shape[1:]).index_add_(0, at, values)
    Z, Y, X = ratio
    return rearrange(bricks, "(k Z Y X) f z y x -> k f (Z z) (Y y) (X x)", Z=Z, Y=Y, X=X)


def _in_pieces(bricks: Tensor, part: BatchPart, brick: Patch) -> Iterator[Tensor]:
    """Undo `matey.model.moving.BricksRead` for one frame ``(k, f, z, y, x)``."""
    first = 0
    for piece in part.pieces:
        cells = piece.history.shape[2:]
        Z, Y, X = (-(-size // of_brick) for size, of_brick in zip(cells, brick[1:], strict=True))
        of_piece = bricks[first : first + Z * Y * X]
        first += Z * Y * X
        frame = rearrange(of_piece, "(Z Y X) f z y x -> f (Z z) (Y y) (X x)", Z=Z, Y=Y, X=X)
        yield frame[:, : cells[0], : cells[1], : cells[2]]


def boxes_of_ranks(samples: Sequence[Samples], brick: Patch, num_ranks: int) -> list[list[list[Box]]]:
    """Return the boxes of each batch that each rank holds."""
    sharing = Sharing.share_out(samples, brick, num_ranks)
    of_ranks = [sharing.boxes(samples, rank) for rank in range(num_ranks)]
    return [[of_rank[batch] for of_rank in of_ranks] for batch in range(len(samples))]


def continued(
    frames: Frames, part: BatchPart, boxes: Sequence[Sequence[Box]], ranks: RankGroup, exchange: Exchange
) -> Frames:
    """Fill in the cells of boxes beyond the end of a periodic axis, from the ranks that hold them at the other side.

    Args:
        frames: values in the boxes of this rank.
        part: this rank's part of the batch.
        boxes: the boxes that each rank holds, of the same batch.
        ranks: the group of ranks that share the samples.
        exchange: exchange between the ranks.
    """
    samples, grid = part.samples, part.samples.window[1:]
    missing = [[(at, *each) for at, box in enumerate(own) for each in _beyond(box, grid)] for own in boxes]
    if not any(missing):
        return frames

    def found(holder: int, receiver: int) -> Iterator[tuple[int, Sides, int, Sides]]:
        """Yield the holder's box and the cells in it, then the receiver's box and the cells in it that are missing."""
        for at, place, source in missing[receiver]:
            for number, (sample, cells) in enumerate(boxes[holder]):
                within = [slice(s.start, min(s.stop, length)) for s, length in zip(cells, grid, strict=True)]
                both = [slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(source, within, strict=True)]
                if sample == boxes[receiver][at][0] and all(side.start < side.stop for side in both):
                    held = [_moved(side, -s.start) for side, s in zip(both, cells, strict=True)]
                    lacks = [_moved(side, p.start - s.start) for side, s, p in zip(both, source, place, strict=True)]
                    yield number, held, at, lacks

    me, filled = ranks.place, [frame.clone() for frame in frames]
    sent = [[_at(frames[n], held).flatten() for n, held, *_ in found(me, other)] for other in range(ranks.size)]
    holes = [[_at(filled[at], lacks) for *_, at, lacks in found(other, me)] for other in range(ranks.size)]
    came = exchange.swap(
        torch.cat([torch.empty(0, dtype=samples.dtype), *(values for of_rank in sent for values in of_rank)]),
        [sum(values.numel() for values in of_rank) for of_rank in sent],
        [sum(hole.numel() for hole in of_rank) for of_rank in holes],
    )
    every = [hole for of_rank in holes for hole in of_rank]
    for hole, values in zip(every, came.split([hole.numel() for hole in every]), strict=True):
        hole.copy_(values.view(hole.shape))
    return filled


def _beyond(box: Box, grid: Sequence[int]) -> Iterator[tuple[Sides, Sides]]:
    """Yield the cells of a box that lie beyond the domain: their place in the box, and their place in the domain."""
    sides = box[1]
    for turns in product(*(range(0, side.stop, length) for side, length in zip(sides, grid, strict=True))):
        axes = list(zip(sides, turns, grid, strict=True))
        source = [slice(max(side.start - turn, 0), min(side.stop - turn, length)) for side, turn, length in axes]
        if any(turns) and all(side.start < side.stop for side in source):
            yield [_moved(s, turn - side.start) for s, (side, turn, _) in zip(source, axes, strict=True)], source


def _moved(side: slice, cells: int) -> slice:
    return slice(side.start + cells, side.stop + cells)


def _at(values: Tensor, sides: Sides) -> Tensor:
    z, y, x = sides
    return values[..., z, y, x]
