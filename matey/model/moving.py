"""Moves bricks, the coarsest patches of fields, from the ranks that have read them to those that need them, in one exchange."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor

from matey.model.configuration import MateyConfig
from matey.model.sequence_group import Exchange, RankGroup
from matey.samples import BatchPart
from matey.tokens.bricks import in_bricks
from matey.tokens.parts import Around, Sharing
from matey.tokens.patches import Patch, extend
from matey.tokens.tokenize import TokenBatch

NUM_RECENT = 2
"""Last frames that are sent for halos."""


def bricks_read(part: BatchPart, brick: Patch) -> Tensor:
    """Return the bricks that this rank has read, a target as their last frame: ``(k, t, f, z, y, x)``."""
    about, bricks = part.samples, []
    for piece in part.pieces:
        frames = piece.history if piece.target is None else torch.cat([piece.history, piece.target[None]])
        covered = [-(-size // cells) * cells for size, cells in zip(frames.shape[2:], brick[1:], strict=True)]
        # Where the domain goes on at its other side, these cells have been read.
        frames = extend(frames, covered, (False, False, False))
        z, y, x = brick[1:]
        bricks.append(rearrange(frames, "t f (Z z) (Y y) (X x) -> (Z Y X) t f z y x", z=z, y=y, x=x))
    if not bricks:
        num_frames = about.window[0] + part.has_target
        return torch.empty(0, num_frames, len(about.fields), *brick[1:], dtype=about.dtype)
    return torch.cat(bricks)


@dataclass(frozen=True)
class Needs:
    """The bricks of a batch that one rank needs, ascending.

    Attributes:
        whole: bricks in which it has tokens.
        recent: bricks of which it needs the last frames.
    """

    whole: Tensor
    recent: Tensor


def needs_of(
    token_batch: TokenBatch,
    regions: Sequence[Sequence[Around]],
    sharing: Sharing,
    config: MateyConfig,
    ranks: RankGroup,
    exchange: Exchange,
) -> list[list[Needs]]:
    """Return what each rank needs of each batch; the boxes around what others predict are asked for."""
    of_ranks = _gathered(regions, ranks.size, exchange)
    layout, ways = token_batch.layout, ranks.size
    rank = ranks.rank_of_tokens(layout.num_tokens)
    of_levels = [
        [
            brick * ways + rank[index]
            for index, brick, *_ in in_bricks(layout, token_batch.frames, config.patches, level)
        ]
        for level in range(len(config.patches))
    ]
    pairs = [torch.unique(torch.cat(of_batch)) for of_batch in zip(*of_levels, strict=True)]
    return [
        [
            Needs(
                pair[pair % ways == of_rank] // ways,
                torch.unique(torch.cat([around.bricks(grid).flatten() for around in of_batch])),
            )
            for pair, of_batch, grid in zip(pairs, of_ranks[of_rank], sharing.grids, strict=True)
        ]
        for of_rank in range(ways)
    ]


def _gathered(regions: Sequence[Sequence[Around]], ways: int, exchange: Exchange) -> list[list[list[Around]]]:
    """Return the regions of each rank and batch, of which this rank knows its own."""
    counts = torch.tensor([len(of_batch) for of_batch in regions])
    of_ranks = exchange.gather(counts, [len(counts)] * ways).view(ways, -1)
    own = torch.tensor([region.numbers() for of_batch in regions for region in of_batch]).flatten()
    lengths = [len(own) // int(counts.sum()) * total for total in of_ranks.sum(dim=1).tolist()]
    rows = iter(exchange.gather(own, lengths).view(int(of_ranks.sum()), -1).tolist())
    return [
        [[Around.from_numbers(next(rows)) for _ in range(number)] for number in of_rank]
        for of_rank in of_ranks.tolist()
    ]


def swapped(
    parts: Sequence[BatchPart], needs: Sequence[Sequence[Needs]], sharing: Sharing, me: int, exchange: Exchange
) -> list[tuple[Tensor, Tensor]]:
    """Move bricks to where they are needed.

    Returns:
        Bricks ``(k, t, f, z, y, x)``, see `bricks_read`, in which this rank has tokens, and the last frames
        ``(m, t, f, z, y, x)`` of those around what it predicts, for each batch; in the order of `Needs`.
    """
    own = [bricks_read(part, sharing.brick) for part in parts]

    def wanted(sender: int, receiver: int) -> Iterator[tuple[int, Tensor, slice]]:
        """Bricks that go from one rank to another: batch, bricks, and frames of them."""
        for batch, (bricks, need) in enumerate(zip(own, needs[receiver], strict=True)):
            num_frames = parts[batch].samples.window[0]
            yield batch, sharing.within(batch, sender, need.whole), slice(0, bricks.shape[1])
            yield batch, sharing.within(batch, sender, need.recent), slice(max(num_frames - NUM_RECENT, 0), num_frames)

    leaving, send = [], []
    for receiver in range(len(needs)):
        of_rank = [
            own[batch][bricks - sharing.bounds[batch][me], frames].flatten()
            for batch, bricks, frames in wanted(me, receiver)
        ]
        send.append(sum(values.numel() for values in of_rank))
        leaving += of_rank
    shapes = [
        (len(bricks), frames.stop - frames.start, *own[batch].shape[2:])
        for sender in range(len(needs))
        for batch, bricks, frames in wanted(sender, me)
    ]
    sizes = [math.prod(shape) for shape in shapes]
    kinds = 2 * len(own)  # from each rank
    receive = [sum(sizes[first : first + kinds]) for first in range(0, len(sizes), kinds)]
    values = exchange.swap(torch.cat(leaving), send, receive).split(sizes)
    rows = [part.view(shape) for part, shape in zip(values, shapes, strict=True)]
    joined = [torch.cat(rows[kind::kinds]) for kind in range(kinds)]
    return list(zip(joined[::2], joined[1::2], strict=True))
