"""Moves bricks, the coarsest patches of fields, from the ranks that have read them to those that need them, in one exchange."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor

from matey.model.configuration import MateyConfig
from matey.model.sequence_group import Exchange, RankGroup
from matey.samples import BatchPart, Samples
from matey.tokens.bricks import in_bricks
from matey.tokens.parts import Around, Sharing
from matey.tokens.patches import Patch, extend
from matey.tokens.tokenize import TokenBatch

NUM_RECENT = 2
"""Last frames that are sent for halos."""

AT_ONCE = 2**20
"""Values that are copied at once by way of others."""


class BricksRead:
    """The bricks of a batch that this rank has read, numbered from 0: where they lie in what it has read."""

    def __init__(self, part: BatchPart, brick: Patch) -> None:
        """See a part by its bricks. Only a box that a brick does not divide is copied, and continued."""
        self._boxes: list[tuple[range, Tensor, Tensor | None, Tensor | None]] = []
        first = 0
        for piece in part.pieces:
            history = _by_brick(piece.history, brick)
            numbers = range(first, first + math.prod(history.shape[:3]))
            target = None if piece.target is None else _by_brick(piece.target[None], brick)
            given = None if piece.given is None else _by_brick(piece.given, brick)
            self._boxes.append((numbers, history, target, given))
            first = numbers.stop

    def copy(self, into: Tensor, bricks: Tensor, frames: range) -> None:
        """Copy frames of bricks ``(k,)``, ascending, to ``(k, t, f, z, y, x)``.

        The target comes after the frames of the history, what is given after its fields; beside the target there are zeros.
        """
        start = 0
        for numbers, history, target, given in self._boxes:
            inside = bricks[(bricks >= numbers.start) & (bricks < numbers.stop)] - numbers.start
            num_frames, num_fields = history.shape[3:5]
            of_history = slice(frames.start, min(frames.stop, num_frames))
            for some in inside.split(max(AT_ONCE // into[0].numel(), 1)) if len(inside) else ():
                place = torch.unravel_index(some, history.shape[:3])
                rows = into[start : start + len(some)]
                known = rows[:, : of_history.stop - of_history.start]
                known[:, :, :num_fields] = history[:, :, :, of_history][*place]
                if given is not None:
                    constant = given.shape[3] < num_frames
                    known[:, :, num_fields:] = given[*place] if constant else given[:, :, :, of_history][*place]
                if frames.stop > num_frames and target is not None:
                    rows[:, -1:, :num_fields], rows[:, -1:, num_fields:] = target[*place], 0
                start += len(some)


def _by_brick(frames: Tensor, brick: Patch) -> Tensor:
    """See frames ``(t, f, z, y, x)`` by their bricks, ``(Z, Y, X, t, f, z, y, x)``."""
    covered = [-(-size // cells) * cells for size, cells in zip(frames.shape[2:], brick[1:], strict=True)]
    # Where the domain goes on at its other side, these cells have been read.
    frames = extend(frames, covered, (False, False, False))
    z, y, x = brick[1:]
    return rearrange(frames, "t f (Z z) (Y y) (X x) -> Z Y X t f z y x", z=z, y=y, x=x)


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
    layout = token_batch.layout
    num_own = torch.bincount(ranks.rank_of_tokens(layout.num_tokens), minlength=ranks.size).tolist()
    needs, first = [], 0
    for regions_of_rank, number in zip(of_ranks, num_own, strict=True):
        # Rank after rank, so that no column of numbers is as long as all tokens.
        own, first = layout.select(slice(first, first + number)), first + number
        of_levels = [in_bricks(own, token_batch.frames, config.patches, level) for level in range(len(config.patches))]
        needs.append(
            [
                Needs(
                    torch.cat([brick for _, brick, *_ in levels]).unique(),
                    torch.cat([around.bricks(grid).flatten() for around in of_batch]).unique(),
                )
                for levels, of_batch, grid in zip(
                    zip(*of_levels, strict=True), regions_of_rank, sharing.grids, strict=True
                )
            ]
        )
    return needs


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


@dataclass(frozen=True)
class Whole:
    """The bricks of a batch in which a rank has tokens, in the order of `Needs`.

    Attributes:
        history: ``(k, t, f, z, y, x)``.
        target: ``(k, f, z, y, x)``, if there is one.
    """

    history: Tensor
    target: Tensor | None


@dataclass(frozen=True)
class _Parcel:
    """Bricks of one batch that go from one rank to another.

    Attributes:
        batch: the batch.
        bricks: ``(k,)``, counted from the sender's first one.
        frames: frames of them, see `BricksRead.copy`.
        shape: shape ``k t f z y x`` of the values.
    """

    batch: int
    bricks: Tensor
    frames: range
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Number of values."""
        return math.prod(self.shape)


def swapped(
    parts: Sequence[BatchPart], needs: Sequence[Sequence[Needs]], sharing: Sharing, me: int, exchange: Exchange
) -> list[tuple[Whole, Tensor]]:
    """Move bricks to where they are needed, in one exchange; those that stay are copied once and do not take part.

    Returns:
        The bricks in which this rank has tokens and the last frames ``(m, t, f, z, y, x)`` of those around what it predicts, of
        each batch.
    """
    own, ranks = [BricksRead(part, sharing.brick) for part in parts], range(len(needs))
    samples = [(part.samples, part.has_target) for part in parts]
    leaving = [_parcels(samples, needs[rank], sharing, me) if rank != me else [] for rank in ranks]
    coming = [_parcels(samples, needs[me], sharing, rank) for rank in ranks]
    send = [sum(parcel.size for parcel in of_rank) for of_rank in leaving]
    receive = [sum(parcel.size for parcel in of_rank) * (rank != me) for rank, of_rank in enumerate(coming)]
    came = exchange.swap(_packed(own, leaving, parts[0].samples.dtype), send, receive)
    by_rank: list[list[Tensor | None]] = [
        [None] * len(parcels) if rank == me else list(values.split([parcel.size for parcel in parcels]))
        for rank, (parcels, values) in enumerate(zip(coming, came.split(receive), strict=True))
    ]
    found = []
    for batch, ((about, has_target), bricks) in enumerate(zip(samples, own, strict=True)):
        whole, recent = (
            [(of_rank[number], values[number]) for of_rank, values in zip(coming, by_rank, strict=True)]
            for number in (2 * batch, 2 * batch + 1)
        )
        num_frames = about.window[0]
        history = _joined(whole, range(num_frames), bricks, came)
        target = _joined(whole, range(num_frames, num_frames + 1), bricks, came)[:, 0] if has_target else None
        found.append((Whole(history, target), _joined(recent, recent[0][0].frames, bricks, came)))
    return found


def _parcels(
    samples: Sequence[tuple[Samples, bool]], needs: Sequence[Needs], sharing: Sharing, sender: int
) -> list[_Parcel]:
    """Return what a rank sends to one with these needs: of each batch whole bricks, then last frames."""
    found = []
    for batch, ((about, has_target), need) in enumerate(zip(samples, needs, strict=True)):
        frames = range(about.window[0])
        for bricks, of_bricks in ((need.whole, range(len(frames) + has_target)), (need.recent, frames[-NUM_RECENT:])):
            of_sender = sharing.within(batch, sender, bricks) - sharing.bounds[batch][sender]
            num_fields = len(about.fields) + len(about.given_fields)
            shape = (len(of_sender), len(of_bricks), num_fields, *sharing.brick[1:])
            found.append(_Parcel(batch, of_sender, of_bricks, shape))
    return found


def _packed(own: Sequence[BricksRead], leaving: Sequence[Sequence[_Parcel]], dtype: torch.dtype) -> Tensor:
    """Return what leaves this rank, rank after rank."""
    parcels = [parcel for of_rank in leaving for parcel in of_rank]
    values = torch.empty(sum(parcel.size for parcel in parcels), dtype=dtype)
    for parcel, into in zip(parcels, values.split([parcel.size for parcel in parcels]), strict=True):
        own[parcel.batch].copy(into.view(parcel.shape), parcel.bricks, parcel.frames)
    return values


def _joined(parcels: Sequence[tuple[_Parcel, Tensor | None]], frames: range, own: BricksRead, like: Tensor) -> Tensor:
    """Return frames of the bricks from all ranks, whose values have come, or are this rank's ``own``."""
    lengths = [len(parcel.bricks) for parcel, _ in parcels]
    found = like.new_empty(sum(lengths), len(frames), *parcels[0][0].shape[2:])
    for (parcel, values), into in zip(parcels, found.split(lengths), strict=True):
        if values is None:
            own.copy(into, parcel.bricks, frames)
        else:
            first = parcel.frames.start
            into.copy_(values.view(parcel.shape)[:, frames.start - first : frames.stop - first])
    return found
