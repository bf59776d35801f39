"""The rank of each segment, where segments move whole: where its tokens lie if that is even, else as evenly as possible."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

# Whole segments move only if no rank gets more than this times its share of tokens and of the attention's products.
MOST_IMBALANCE = 1.1

LAST_TURNS = 64
"""Number per rank of the shortest segments, dealt out one by one, which takes 5 to 11 us each: 20 ms on 64 ranks."""


def homes_of_segments(number: Tensor, owner: Tensor, ways: int) -> Tensor | None:
    """Choose a rank for each segment: the rank with most of its tokens or, if that is uneven, each rank in turn.

    Args:
        number: ``(n,)`` segment of each token, from 0.
        owner: ``(n,)`` rank that holds each token.
        ways: number of ranks.

    Returns:
        The rank of each segment ``(segments,)``; None if there are fewer segments than ranks, or if some rank would get
        more than `MOST_IMBALANCE` times its share of the tokens or of the attention's products.
    """
    num_segments = int(number.max()) + 1 if len(number) else 0
    if num_segments < ways:
        return None
    counts = torch.bincount(number * ways + owner, minlength=num_segments * ways).view(-1, ways)
    lengths = counts.sum(dim=1).double()
    work = lengths.square()
    homes = counts.argmax(dim=1)
    if _is_even(homes, work, ways) and _is_even(homes, lengths, ways):
        return homes
    homes = _in_turns(counts, lengths, work)
    return homes if _is_even(homes, work, ways) and _is_even(homes, lengths, ways) else None


def _in_turns(counts: Tensor, lengths: Tensor, work: Tensor) -> Tensor:
    """Give each rank a segment per turn, the longest first; the last segments go to the rank that has least so far.

    Over all turns, two ranks differ by at most one longest segment.
    """
    homes, ways = counts.argmax(dim=1), counts.shape[1]
    order = torch.argsort(work, descending=True, stable=True)
    first = max(len(order) // ways - LAST_TURNS, 0) * ways
    turns = order[:first].view(-1, ways)
    turns = turns.gather(1, homes[turns].argsort(dim=1, stable=True))  # segments stay where they lie if they can
    chosen = homes.index_copy(0, turns.flatten(), torch.arange(ways, device=homes.device).repeat(len(turns)))
    shares = torch.stack([lengths / lengths.sum(), work / work.sum()])
    last = order[first:]
    loads, own = shares[:, turns].sum(dim=1).T.cpu().numpy(), shares[:, last].T.cpu().numpy()  # (ways, 2), (s, 2)
    return chosen.index_copy(0, last, torch.from_numpy(dealt(loads, own, counts[last].cpu().numpy())).to(chosen))


def dealt(loads: np.ndarray, shares: np.ndarray, held: np.ndarray) -> np.ndarray:
    """Give each segment in turn to the rank that has least so far; among equal ranks, to the one that holds most of it.

    Args:
        loads: ``(ways, 2)``, shares of the tokens and of the work that each rank has.
        shares: ``(s, 2)``, shares that come with each segment.
        held: ``(s, ways)``, tokens of each segment that each rank holds.
    """
    homes, loads = np.empty(len(shares), dtype=np.int64), loads.copy()
    largest = loads.max(axis=1)
    for segment, (more, of_ranks) in enumerate(zip(shares, held, strict=True)):
        rank = homes[segment] = np.where(largest == largest.min(), of_ranks, -1).argmax()
        loads[rank] += more
        largest[rank] = loads[rank].max()
    return homes


def _is_even(homes: Tensor, amounts: Tensor, ways: int) -> bool:
    """Whether no rank gets more than `MOST_IMBALANCE` times its share of the segments' amounts."""
    shared = torch.zeros(ways, dtype=amounts.dtype, device=amounts.device).index_add(0, homes, amounts)
    return bool(shared.max() <= MOST_IMBALANCE * amounts.sum() / ways)
