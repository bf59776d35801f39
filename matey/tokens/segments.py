"""Which tokens attend to each other: a key per token becomes an order and lengths, once per batch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from matey.tokens.layout import TokenLayout


@dataclass(frozen=True)
class Segmentation:
    """Tokens brought together by equal key.

    Attributes:
        order: ``(n,)`` the token at each packed position, or None where the tokens already lie segment by segment.
        inverse: ``(n,)`` the packed position of each token, or None likewise.
        lengths: number of tokens of each segment, in packed order.
        runs: ``(count, length)`` of consecutive segments of equal length, in packed order; their products add up to n.
    """

    order: Tensor | None
    inverse: Tensor | None
    lengths: tuple[int, ...]
    runs: tuple[tuple[int, int], ...]


def segment(key: Tensor) -> Segmentation:
    """Return the segmentation of an integer key ``(n,)``: tokens with equal keys attend to each other."""
    num_tokens = key.shape[0]
    order = torch.argsort(key, stable=True)
    lengths = torch.unique_consecutive(key[order], return_counts=True)[1]
    if _num_runs(lengths) > lengths.unique().numel():
        # Segments of one length far apart would each be a call of its own; bring them together.
        by_length = torch.argsort(lengths, stable=True)
        rank = torch.empty_like(by_length)
        rank[by_length] = torch.arange(len(by_length), device=key.device)
        order = order[torch.argsort(rank.repeat_interleave(lengths), stable=True)]
        lengths = lengths[by_length]
    in_place = torch.equal(order, torch.arange(num_tokens, device=key.device))
    inverse = None
    if not in_place:
        inverse = torch.empty_like(order)
        inverse[order] = torch.arange(num_tokens, device=key.device)
    run_lengths, run_counts = torch.unique_consecutive(lengths, return_counts=True)
    runs = tuple(zip(run_counts.tolist(), run_lengths.tolist(), strict=True))
    return Segmentation(None if in_place else order, inverse, tuple(lengths.tolist()), runs)


def joint_key(*columns: Tensor) -> Tensor:
    """Return one integer key ``(n,)`` that is equal where all columns ``(n,)`` of non-negative integers are."""
    key = columns[0]
    for column in columns[1:]:
        key = key * (column.max() + 1 if len(column) else 1) + column
    return key


def sample_key(layout: TokenLayout) -> Tensor:
    """Bring all tokens of a sample together: full attention over space and time."""
    return layout.sample


def place_key(layout: TokenLayout) -> Tensor:
    """Bring the times of each leaf patch together."""
    return joint_key(layout.sample, layout.level, *layout.place.unbind(1))


def time_key(layout: TokenLayout) -> Tensor:
    """Bring all of space at one time together, in units of the coarsest patch."""
    return joint_key(layout.sample, layout.coarse[:, 0])


def line_key(layout: TokenLayout, axis: int) -> Tensor:
    """Bring one line of coarse patches along an axis (1, 2, 3 for z, y, x) together, at one time, with all leaves in it.

    On a uniform grid this is the usual axial attention; on adaptive tokens a line is as wide as the coarsest patch.
    """
    others = [layout.coarse[:, other] for other in (1, 2, 3) if other != axis]
    return joint_key(layout.sample, layout.coarse[:, 0], *others)


def _num_runs(lengths: Tensor) -> int:
    return torch.unique_consecutive(lengths).numel()
