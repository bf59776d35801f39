"""The halo exchange of decoded blocks: the ranks' parts of a row are added up on the rank that holds the row."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from matey.parallel.exchange import Group, exchange_rows


@dataclass(frozen=True)
class RowsPlan:
    """Destinations of one kind of row, such as the tiles of a batch.

    Attributes:
        held: ``(k,)``, places of the rows that this rank holds in the list of rows that it has a part of.
        sent: ``(s,)``, places of the rows that go to other ranks, rank after rank.
        num_sent: number of rows that go to each rank.
        places: places ``(r,)``, among the rows that this rank holds, of the rows that come from each rank.
    """

    held: Tensor
    sent: Tensor
    num_sent: tuple[int, ...]
    places: tuple[Tensor, ...]


def plan_hand_over(
    reached: Sequence[Tensor], held: Sequence[Tensor], routes: Sequence[Tensor], me: int, num_ranks: int
) -> tuple[RowsPlan, ...]:
    """Plan the exchange without communication.

    Args:
        reached: the numbers ``(m,)`` of the rows that this rank has a part of, ascending, one tensor per kind.
        held: the numbers ``(k,)`` of the rows that this rank holds, ascending and among ``reached``, one tensor per
            kind.
        routes: tensors ``(3, r)``, one per kind, with a column for each row that this rank sends or receives, in ascending
            order: the rank that sends it, the rank that receives it, and the row's number.
        me: this rank's place in the group.
        num_ranks: number of ranks in the group.
    """
    plans = []
    for there, mine, of_kind in zip(reached, held, routes, strict=True):
        (to, leaving), (source, coming) = of_kind[1:, of_kind[0] == me], of_kind[::2, of_kind[1] == me]
        to_rank, from_rank = (torch.bincount(rank, minlength=num_ranks).tolist() for rank in (to, source))
        plans.append(
            RowsPlan(
                held=torch.searchsorted(there, mine),
                sent=torch.searchsorted(there, leaving),
                num_sent=tuple(to_rank),
                places=torch.searchsorted(mine, coming).split(from_rank),
            )
        )
    return tuple(plans)


def hand_over(values: Sequence[Tensor], plans: Sequence[RowsPlan], group: Group) -> list[Tensor]:
    """Send rows to the ranks that hold them, in one exchange, and add up the parts of the rows that this rank holds.

    Args:
        values: tensors ``(m, ...)``, one per kind of row: this rank's part of the rows that it contributes to.
        plans: the plan for each kind of row, see `plan_hand_over`.
        group: process group; all its ranks must call.

    Returns:
        One tensor ``(k, ...)`` per kind, the rows that this rank holds: its own part, to which the parts of the other
        ranks are added rank by rank.
    """
    own = [have[plan.held] for have, plan in zip(values, plans, strict=True)]
    # Kinds differ in the width of a row, so all values for a rank go as one flat list.
    sent = [have[plan.sent].flatten(1).split(plan.num_sent) for have, plan in zip(values, plans, strict=True)]
    widths = [math.prod(have.shape[1:]) for have in values]
    lengths = [
        [len(rows) * width for rows, width in zip(of_rank, widths, strict=True)]
        for of_rank in zip(*(plan.places for plan in plans), strict=True)
    ]
    numbers = exchange_rows(
        torch.cat([rows.flatten() for of_rank in zip(*sent, strict=True) for rows in of_rank]),
        [sum(rows.numel() for rows in of_rank) for of_rank in zip(*sent, strict=True)],
        [sum(of_rank) for of_rank in lengths],
        group,
    )
    received = iter(numbers.split([length for of_rank in lengths for length in of_rank]))
    for of_rank in zip(*(plan.places for plan in plans), strict=True):
        for total, place in zip(own, of_rank, strict=True):
            rows = next(received).view(len(place), *total.shape[1:])
            if len(place):
                total.index_add_(0, place, rows)
    if not len(numbers):
        # A rank that receives nothing must take part in the exchange of gradients too, or the others wait for it.
        own[0] = own[0] + numbers.sum()
    return own
