"""Moves bricks, the coarsest patches of fields, from the ranks that have read them to those that need them, in one exchange.

A rank gets the bricks with its own tokens whole, and the last frames of the cells within reach in the bricks around them:

      . . . . . . . . .
      . . . . . . o o o      .  of a brick around: stays where it was read
      . . . . . . # # #      o  of a brick around, within reach: two frames go
      . . . o o o # # #      #  of a brick with own tokens: all frames and the target go
      . . . # # # # # #
"""

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
"""Number of last frames that are sent for halos."""

AT_ONCE = 2**20
"""Number of values that are copied at once where a copy needs a temporary tensor."""


Cells = tuple[slice, slice, slice]
"""Cells ``z, y, x`` of a brick."""

EVERY_CELL: Cells = (slice(None), slice(None), slice(None))


class BricksRead:
    """The bricks of a batch that this rank has read, numbered from 0, and their places in the part that it has read."""

    def __init__(self, part: BatchPart, brick: Patch) -> None:
        """View a part by its bricks; only a box that bricks do not divide evenly is copied and extended."""
        self._boxes: list[tuple[range, Tensor, Tensor | None, Tensor | None]] = []
        first = 0
        for piece in part.pieces:
            history = _by_brick(piece.history, brick)
            numbers = range(first, first + math.prod(history.shape[:3]))
            target = None if piece.target is None else _by_brick(piece.target[None], brick)
            given = None if piece.given is None else _by_brick(piece.given, brick)
            self._boxes.append((numbers, history, target, given))
            first = numbers.stop

    def copy(self, into: Tensor, bricks: Tensor, frames: range, cells: Cells = EVERY_CELL) -> None:
        """Copy frames of some cells of bricks ``(k,)``, ascending, to ``(k, t, f, z, y, x)``.

        The target comes after the frames of the history, given fields after the history's fields; they are zero at the target.
        """
        start = 0
        for numbers, *read in self._boxes:
            history, target, given = (None if each is None else each[..., *cells] for each in read)
            assert history is not None, "every box has a history"
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
    """View frames ``(t, f, z, y, x)`` by their bricks, ``(Z, Y, X, t, f, z, y, x)``."""
    covered = [-(-size // cells) * cells for size, cells in zip(frames.shape[2:], brick[1:], strict=True)]
    # No axis wraps here: the cells beyond a periodic end have been read already.
    frames = extend(frames, covered, (False, False, False))
    z, y, x = brick[1:]
    return rearrange(frames, "t f (Z z) (Y y) (X x) -> Z Y X t f z y x", z=z, y=y, x=x)


@dataclass(frozen=True)
class Needs:
    """The bricks of a batch that one rank needs, ascending.

    Attributes:
        whole: bricks in which the rank has tokens.
        recent: bricks with cells whose last frames the rank needs.
        cells: ``(m, 3, 2)``, first cell and end along ``z, y, x`` of these cells in each brick of ``recent``.
    """

    whole: Tensor
    recent: Tensor
    cells: Tensor


def needs_of(
    token_batch: TokenBatch,
    regions: Sequence[Sequence[Around]],
    sharing: Sharing,
    config: MateyConfig,
    ranks: RankGroup,
    exchange: Exchange,
) -> list[list[Needs]]:
    """Return the needs of each rank in each batch; the ranks tell each other the boxes around what they predict."""
    of_ranks = _gathered(regions, ranks.size, exchange)
    layout = token_batch.layout
    num_own = torch.bincount(ranks.rank_of_tokens(layout.num_tokens), minlength=ranks.size).tolist()
    needs, first = [], 0
    for regions_of_rank, number in zip(of_ranks, num_own, strict=True):
        # Rank after rank, so that no tensor of brick numbers is as long as the list of all tokens.
        own, first = layout.select(slice(first, first + number)), first + number
        of_levels = [in_bricks(own, token_batch.frames, config.patches, level) for level in range(len(config.patches))]
        needs.append(
            [
                Needs(torch.cat([brick for _, brick, *_ in levels]).unique(), *recent_of(of_batch, grid, sharing.brick))
                for levels, of_batch, grid in zip(
                    zip(*of_levels, strict=True), regions_of_rank, sharing.grids, strict=True
                )
            ]
        )
    return needs


def recent_of(regions: Sequence[Around], grid: Sequence[int], brick: Patch) -> tuple[Tensor, Tensor]:
    """Return the bricks ``(m,)`` of some boxes, ascending, and the cells that are needed in each, as in `Needs`."""
    numbers, place = torch.cat([around.bricks(grid).flatten() for around in regions]).unique(return_inverse=True)
    begin, end = torch.cat([around.cells_of(brick).flatten(0, 3) for around in regions]).unbind(2)
    first = torch.tensor(brick[1:]).repeat(len(numbers), 1)
    index = place[:, None].expand_as(begin)
    return numbers, torch.stack(
        [first.scatter_reduce(0, index, begin, "amin"), torch.zeros_like(first).scatter_reduce(0, index, end, "amax")],
        2,
    )


def _gathered(regions: Sequence[Sequence[Around]], ways: int, exchange: Exchange) -> list[list[list[Around]]]:
    """Gather the regions of each rank and batch; ``regions`` are those of this rank."""
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
        batch: number of the batch.
        bricks: numbers ``(k,)`` of the bricks, counted from the sender's first brick.
        place: ``(k,)``, places of these bricks in ``recent`` of the receiver's `Needs`; None for bricks that go whole.
        frames: frames that go, see `BricksRead.copy`.
        cells: cells of each brick that go.
        num_fields: number of fields and given fields.
    """

    batch: int
    bricks: Tensor
    place: Tensor | None
    frames: range
    cells: Cells
    num_fields: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape ``k t f z y x`` of the values."""
        sides = (side.stop - side.start for side in self.cells)
        return (len(self.bricks), len(self.frames), self.num_fields, *sides)

    @property
    def size(self) -> int:
        """Number of values."""
        return math.prod(self.shape)


def swapped(
    parts: Sequence[BatchPart], needs: Sequence[Sequence[Needs]], sharing: Sharing, me: int, exchange: Exchange
) -> list[tuple[Whole, Tensor]]:
    """Move bricks to the ranks that need them, in one exchange; bricks that stay are copied once and do not take part.

    Returns:
        The bricks in which this rank has tokens, and the last frames ``(m, t, f, z, y, x)`` in the bricks of ``recent``, for
        each batch. Cells of these frames that the rank does not need are zero, or have come with a whole brick.
    """
    own, ranks = [BricksRead(part, sharing.brick) for part in parts], range(len(needs))
    samples = [(part.samples, part.has_target) for part in parts]
    leaving = [_parcels(samples, needs[rank], sharing, me) if rank != me else [] for rank in ranks]
    coming = [_parcels(samples, needs[me], sharing, rank) for rank in ranks]
    send = [sum(parcel.size for parcel in of_rank) for of_rank in leaving]
    receive = [sum(parcel.size for parcel in of_rank) * (rank != me) for rank, of_rank in enumerate(coming)]
    came = exchange.swap(_packed(own, leaving, parts[0].samples.dtype), send, receive)
    of_batches: list[list[tuple[_Parcel, Tensor | None]]] = [[] for _ in parts]
    for rank, (parcels, of_rank) in enumerate(zip(coming, came.split(receive), strict=True)):
        sizes = [parcel.size for parcel in parcels]
        values: Sequence[Tensor | None] = [None] * len(parcels) if rank == me else of_rank.split(sizes)
        for parcel, of_parcel in zip(parcels, values, strict=True):
            of_batches[parcel.batch].append((parcel, of_parcel))
    found = []
    for (about, has_target), bricks, need, parcels_in in zip(samples, own, needs[me], of_batches, strict=True):
        num_frames = about.window[0]
        whole = [each for each in parcels_in if each[0].place is None]
        history = _joined(whole, range(num_frames), bricks, came)
        target = _joined(whole, range(num_frames, num_frames + 1), bricks, came)[:, 0] if has_target else None
        around = [each for each in parcels_in if each[0].place is not None]
        found.append((Whole(history, target), _around(around, need, history, bricks)))
    return found


def _parcels(
    samples: Sequence[tuple[Samples, bool]], needs: Sequence[Needs], sharing: Sharing, sender: int
) -> list[_Parcel]:
    """Return the parcels from ``sender`` to a rank with these needs: for each batch whole bricks, then last frames."""
    found = []
    for batch, ((about, has_target), need) in enumerate(zip(samples, needs, strict=True)):
        first, end = sharing.bounds[batch][sender : sender + 2]
        frames, num_fields = range(about.window[0]), len(about.fields) + len(about.given_fields)
        whole, of_whole = need.whole[(need.whole >= first) & (need.whole < end)], range(len(frames) + has_target)
        z, y, x = (slice(0, size) for size in sharing.brick[1:])
        found.append(_Parcel(batch, whole - first, None, of_whole, (z, y, x), num_fields))
        goes = (need.recent >= first) & (need.recent < end) & (need.cells[..., 0] < need.cells[..., 1]).all(dim=1)
        place = (goes & ~torch.isin(need.recent, need.whole)).nonzero(as_tuple=True)[0]
        boxes, box = need.cells[place].unique(dim=0, return_inverse=True)  # in the same order on both ranks
        for number, sides in enumerate(boxes.tolist()):
            z, y, x = (slice(*side) for side in sides)
            some = place[box == number]
            found.append(_Parcel(batch, need.recent[some] - first, some, frames[-NUM_RECENT:], (z, y, x), num_fields))
    return found


def _packed(own: Sequence[BricksRead], leaving: Sequence[Sequence[_Parcel]], dtype: torch.dtype) -> Tensor:
    """Return the values that leave this rank, receiver after receiver."""
    parcels = [parcel for of_rank in leaving for parcel in of_rank]
    values = torch.empty(sum(parcel.size for parcel in parcels), dtype=dtype)
    for parcel, into in zip(parcels, values.split([parcel.size for parcel in parcels]), strict=True):
        own[parcel.batch].copy(into.view(parcel.shape), parcel.bricks, parcel.frames, parcel.cells)
    return values


def _joined(parcels: Sequence[tuple[_Parcel, Tensor | None]], frames: range, own: BricksRead, like: Tensor) -> Tensor:
    """Return frames of whole bricks from all ranks; a parcel without values holds bricks of this rank's ``own``."""
    lengths = [len(parcel.bricks) for parcel, _ in parcels]
    found = like.new_empty(sum(lengths), len(frames), *parcels[0][0].shape[2:])
    for (parcel, values), into in zip(parcels, found.split(lengths), strict=True):
        if values is None:
            own.copy(into, parcel.bricks, frames)
        else:
            into.copy_(values.view(parcel.shape)[:, frames.start : frames.stop])
    return found


def _around(parcels: Sequence[tuple[_Parcel, Tensor | None]], need: Needs, history: Tensor, own: BricksRead) -> Tensor:
    """Return the last frames ``(m, t, f, z, y, x)`` of bricks; for whole bricks they are in the ``history`` that came."""
    last = history[:, -NUM_RECENT:]
    found = last.new_zeros(len(need.recent), *last.shape[1:])
    is_whole = torch.isin(need.recent, need.whole).nonzero(as_tuple=True)[0]
    for some in is_whole.split(max(AT_ONCE // max(found[:1].numel(), 1), 1)):
        found[some] = last[torch.searchsorted(need.whole, need.recent[some])]
    for parcel, values in parcels:
        if values is None:
            values = last.new_empty(parcel.shape)
            own.copy(values, parcel.bricks, parcel.frames, parcel.cells)
        z, y, x = parcel.cells
        found[:, :, :, z, y, x][parcel.place] = values.view(parcel.shape)
    return found
