"""Decide which patches are worth splitting: those in which the field varies."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from itertools import pairwise, product
from typing import Literal

import torch
from einops import rearrange, repeat
from torch import Tensor

from matey.tokens.patches import Patch, patch_grid


def patch_variance(normalised: Tensor, patch: Patch) -> Tensor:
    """Variance of the values inside each spatial patch, over all frames and its cells, averaged over the fields.

    Args:
        normalised: ``(b, t, f, z, y, x)``, fields of unit variance, so that no unit outweighs another.
        patch: its spatial extent counts; a patch is split for all frames of the window or for none.

    Returns:
        ``(b, Z, Y, X)``.
    """
    _, pz, py, px = patch
    values = rearrange(normalised, "b t f (Z pz) (Y py) (X px) -> b Z Y X f (t pz py px)", pz=pz, py=py, px=px)
    return values.var(dim=-1, correction=0).mean(dim=-1)


@dataclass(frozen=True)
class Refinement:
    """Which patches are split.

    Attributes:
        rule: ``threshold`` splits a patch whose variance exceeds ``amount`` times the largest of the sample at its level: 0
            splits wherever the field varies at all, 1 nothing. ``fraction`` splits that share of the patches of each level,
            the most variable ones. ``budget`` splits the most variable patch again and again until each sample has exactly
            ``amount`` tokens. Of equally variable patches the first in the order z, y, x is taken.
        amount: see above.
    """

    rule: Literal["threshold", "fraction", "budget"]
    amount: float


def refine(normalised: Tensor, patches: Sequence[Patch], refinement: Refinement) -> list[Tensor]:
    """Decide which patches of each sample are split.

    Args:
        normalised: ``(b, t, f, z, y, x)``.
        patches: levels from coarse to fine; with one level there is nothing to split.
        refinement: the rule.

    Returns:
        For every level but the finest, ``(b, Z, Y, X)`` of bool; a patch whose parent is whole is never split.

    Raises:
        ValueError: a budget that splitting cannot spend exactly.
    """
    if len(patches) == 1:
        return []
    if refinement.rule == "budget":
        return _spend(normalised, patches, int(refinement.amount))
    refined: list[Tensor] = []
    for level, patch in enumerate(patches[:-1]):
        variance = patch_variance(normalised, patch)
        exists = to_children(refined[-1], patches[level - 1], patch) if refined else torch.ones_like(variance).bool()
        if refinement.rule == "threshold":
            split = exists & (variance > refinement.amount * variance.amax(dim=(1, 2, 3), keepdim=True))
        else:
            split = _top_share(variance, exists, refinement.amount)
        refined.append(split)
    return refined


def _top_share(variance: Tensor, exists: Tensor, share: float) -> Tensor:
    """Mark the share of the existing patches of each sample with the largest variance, ``(b, Z, Y, X)``."""
    scores = variance.masked_fill(~exists, -1.0).flatten(1)
    rank = scores.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    count = (share * exists.flatten(1).sum(dim=1, keepdim=True)).round()
    return (rank < count).view_as(exists) & exists


def check_window(window: Sequence[int], patches: Sequence[Patch], refinement: Refinement) -> None:
    """Raise ValueError unless a window ``(t, z, y, x)`` of frames and cells can be cut into these patches by this rule."""
    grids = [patch_grid(window, patch) for patch in patches]
    if refinement.rule != "budget":
        return
    costs = {_cost(coarse, fine) for coarse, fine in pairwise(grids)}
    start, most = math.prod(grids[0]), math.prod(grids[-1])
    if len(costs) != 1:
        raise ValueError(
            "The rule 'budget' needs several levels that all split a patch into the same number of tokens; "
            f"change tokens.patches {[list(patch) for patch in patches]} or take the rule 'fraction'."
        )
    (cost,) = costs
    if not start <= refinement.amount <= most or (refinement.amount - start) % cost:
        nearest = min(max(start + round((refinement.amount - start) / cost) * cost, start), most)
        size = "x".join(map(str, window))
        raise ValueError(
            f"A budget of {refinement.amount:g} tokens cannot be spent exactly on a window of {size} (t z y x): there "
            f"are {start} coarse tokens, {cost} more for each patch that is split, {most} at most; the nearest is {nearest}."
        )


def _spend(normalised: Tensor, patches: Sequence[Patch], budget: int) -> list[Tensor]:
    """Split the most variable leaf of each sample until it has exactly ``budget`` tokens."""
    window = (normalised.shape[1], *normalised.shape[3:])
    check_window(window, patches, Refinement("budget", budget))
    grids = [patch_grid(window, patch) for patch in patches]
    num_splits = (budget - math.prod(grids[0])) // _cost(grids[0], grids[1])
    variances = [patch_variance(normalised, patch).cpu() for patch in patches[:-1]]
    refined = [torch.zeros(variance.shape, dtype=torch.bool) for variance in variances]
    for sample in range(len(normalised)):
        values = [variance[sample].tolist() for variance in variances]
        heap = [(-_at(values[0], place), 0, place) for place in product(*map(range, grids[0][1:]))]
        heapify(heap)
        for _ in range(num_splits):
            _, level, place = heappop(heap)
            refined[level][(sample, *place)] = True
            if level + 1 < len(values):
                ratios = (fine // coarse for coarse, fine in zip(grids[level][1:], grids[level + 1][1:], strict=True))
                for child in product(*(range(p * r, (p + 1) * r) for p, r in zip(place, ratios, strict=True))):
                    heappush(heap, (-_at(values[level + 1], child), level + 1, child))
    return [split.to(normalised.device) for split in refined]


def _cost(coarse: Sequence[int], fine: Sequence[int]) -> int:
    """How many tokens more there are after a patch has been split, from the patch grids ``(T, Z, Y, X)`` of two levels."""
    children = math.prod(f // c for c, f in zip(coarse[1:], fine[1:], strict=True))
    return children * fine[0] - coarse[0]


def _at(values: list, place: tuple[int, int, int]) -> float:
    z, y, x = place
    return values[z][y][x]


def to_children(parents: Tensor, coarse: Patch, fine: Patch) -> Tensor:
    """Repeat a value per coarse patch ``(b, Z, Y, X)`` for each of its children at the finer level."""
    rz, ry, rx = (c // f for c, f in zip(coarse[1:], fine[1:], strict=True))
    return repeat(parents, "b Z Y X -> b (Z rz) (Y ry) (X rx)", rz=rz, ry=ry, rx=rx)
