"""Rows that several ranks have a part of are added up at the ranks that hold them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from matey.parallel.exchange import Group, exchange_rows


def hand_over(
    values: Sequence[Tensor],
    reached: Sequence[Sequence[Tensor]],
    held: Sequence[Sequence[Tensor]],
    me: int,
    group: Group,
) -> list[Tensor]:
    """Send rows to the ranks that hold them, in one exchange, and add up what comes for those that this rank holds.

    Args:
        values: per kind of row ``(m, ...)``, what this rank has of those that it reaches.
        reached: per rank and kind the numbers of the rows that the rank has something of, ascending.
        held: per rank and kind the numbers of the rows that it holds, ascending.
        me: this rank's place in the group.
        group: every rank of it must call.

    Returns:
        Per kind ``(k, ...)``, the rows that this rank holds. Parts are added rank by rank, so that a sum is always the same.
    """
    sent = [
        [
            have.index_select(0, torch.isin(own, theirs).nonzero()[:, 0])
            for have, own, theirs in zip(values, reached[me], of_rank, strict=True)
        ]
        for of_rank in held
    ]
    places = [
        [
            torch.searchsorted(own, theirs[torch.isin(theirs, own)])
            for own, theirs in zip(held[me], of_rank, strict=True)
        ]
        for of_rank in reached
    ]
    summed = [
        kept.new_zeros(len(own), *kept.shape[1:]).index_add_(0, place, kept)
        for own, place, kept in zip(held[me], places[me], sent[me], strict=True)
    ]
    # What stays here is sent to nobody.
    sent[me], places[me] = [kept[:0] for kept in sent[me]], [place[:0] for place in places[me]]
    # Kinds differ in the width of a row, so all that goes to a rank is one list of numbers.
    widths = [math.prod(have.shape[1:]) for have in values]
    lengths = [[len(place) * width for place, width in zip(of_rank, widths, strict=True)] for of_rank in places]
    numbers = exchange_rows(
        torch.cat([rows.flatten() for of_rank in sent for rows in of_rank]),
        [sum(rows.numel() for rows in of_rank) for of_rank in sent],
        [sum(of_rank) for of_rank in lengths],
        group,
    )
    received = iter(numbers.split([length for of_rank in lengths for length in of_rank]))
    for of_rank in places:
        for total, place in zip(summed, of_rank, strict=True):
            total.index_add_(0, place, next(received).view(len(place), *total.shape[1:]))
    return summed
