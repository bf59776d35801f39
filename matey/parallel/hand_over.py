"""The halo exchange of decoded blocks: rows that several ranks have a part of are added up at the ranks that hold them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from matey.parallel.exchange import Group, exchange_rows


def hand_over(
    values: Sequence[Tensor],
    reached: Sequence[Tensor],
    held: Sequence[Tensor],
    routes: Sequence[Tensor],
    me: int,
    num_ranks: int,
    group: Group,
) -> list[Tensor]:
    """Send rows to the ranks that hold them, in one exchange, and add up what comes for those that this rank holds.

    Args:
        values: tensors ``(m, ...)``, one per kind of row: this rank's part of the rows that it contributes to.
        reached: the numbers ``(m,)`` of those rows, ascending, one tensor per kind.
        held: the numbers ``(k,)`` of the rows that this rank holds, ascending and among ``reached``, one tensor per
            kind.
        routes: tensors ``(3, r)``, one per kind, with a column for each row that changes ranks, in ascending order: the
            rank that sends it, the rank that receives it, and the row's number.
        me: this rank's place in the group.
        num_ranks: number of ranks in the group.
        group: process group, every rank of which must call.

    Returns:
        One tensor ``(k, ...)`` per kind, the rows that this rank holds: its own part, to which the parts of the other
        ranks are added rank by rank.
    """
    own = [have[torch.searchsorted(there, rows)] for have, there, rows in zip(values, reached, held, strict=True)]
    leaving = [of_kind[1:, of_kind[0] == me] for of_kind in routes]
    coming = [of_kind[::2, of_kind[1] == me] for of_kind in routes]
    counts = [
        torch.stack([torch.bincount(of_kind[0], minlength=num_ranks) for of_kind in side]).tolist()
        for side in (leaving, coming)
    ]
    sent = [
        have[torch.searchsorted(there, rows)].flatten(1).split(of_rank)
        for have, there, (_, rows), of_rank in zip(values, reached, leaving, counts[0], strict=True)
    ]
    # Kinds differ in the width of a row, so all that goes to a rank is one list of numbers.
    widths = [math.prod(have.shape[1:]) for have in values]
    lengths = [
        [count * width for count, width in zip(of_rank, widths, strict=True)]
        for of_rank in zip(*counts[1], strict=True)
    ]
    numbers = exchange_rows(
        torch.cat([rows.flatten() for of_rank in zip(*sent, strict=True) for rows in of_rank]),
        [sum(rows.numel() for rows in of_rank) for of_rank in zip(*sent, strict=True)],
        [sum(of_rank) for of_rank in lengths],
        group,
    )
    received = iter(numbers.split([length for of_rank in lengths for length in of_rank]))
    places = [
        torch.searchsorted(mine, rows).split(of_rank)
        for mine, (_, rows), of_rank in zip(held, coming, counts[1], strict=True)
    ]
    for of_rank in zip(*places, strict=True):
        for total, place in zip(own, of_rank, strict=True):
            rows = next(received).view(len(place), *total.shape[1:])
            if len(place):
                total.index_add_(0, place, rows)
    if not len(numbers):
        # A rank that nothing comes for must take part in the exchange of gradients too, or the others wait for it.
        own[0] = own[0] + numbers.sum()
    return own
