"""Decides which patches are split: those with the largest values of a criterion, see `matey.tokens.criteria`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from itertools import pairwise, product
from typing import Any

import torch
from einops import repeat
from torch import Tensor

from matey.config.schema import CRITERIA, RefineRule, RefineValues
from matey.tokens.criteria import LOCAL_CRITERIA, drawn, patch_mean
from matey.tokens.normalisation import held_in, num_values
from matey.tokens.patches import Patch, cover, holds_cells, parts_along, patch_grid


@dataclass(frozen=True)
class Refinement:
    """A rule for splitting patches; names and legal values are those of `matey.config.schema.TokensSection`.

    Attributes:
        rule: ``threshold`` splits a patch whose variance exceeds ``refine`` times the largest of its sample and level: 0
            splits wherever the field varies at all, 1 nothing. ``fraction`` splits the share ``refine`` of the patches of
            each level, the most variable ones. ``budget`` splits the most variable patch again and again until each sample
            has exactly ``refine`` tokens. Among equally variable patches, the first in the order z, y, x is taken.
        refine: the rule's threshold, share or number of tokens of a sample.
        values: the fields whose variance counts: ``normalised``, so that units do not matter, or ``raw``, where the field
            with the largest numbers decides.
        change: weight of the mean square change between the last two frames, which is added to the variance, so that
            patches are split also where the field is about to vary.
        keep_parents: whether a patch that is split keeps its tokens beside those of its children (the token set ``mul``).
        criterion: name of the criterion that takes the place of the variance above, see `matey.tokens.criteria`.
    """

    rule: RefineRule
    refine: float
    values: RefineValues = "normalised"
    change: float = 0.0
    keep_parents: bool = False
    criterion: str = "variance"


def refine(fields: Tensor, patches: Sequence[Patch], refinement: Refinement) -> list[Tensor]:
    """Decide which patches of each sample are split.

    Args:
        fields: ``(b, t, f, z, y, x)``, the values named by ``refinement.values``, on a window that `check_window` accepts.
        patches: levels from coarse to fine; with one level there is nothing to split.
        refinement: the rule.

    Returns:
        One mask ``(b, Z, Y, X)`` of the patches that are split for every level but the finest, padding included; a patch
        whose parent is not split is never split.
    """
    window = (fields.shape[1], *fields.shape[3:])
    return split_by(criteria_of(fields, patches, refinement), window, patches, refinement)


def criteria_of(fields: Tensor, patches: Sequence[Patch], refinement: Refinement) -> list[Tensor]:
    """Return the criterion of each patch, ``(b, Z, Y, X)`` for every level but the finest; see `refine`."""
    covered = cover((fields.shape[1], *fields.shape[3:]), patches[0])
    return [_criterion(fields, covered, patch, refinement) for patch in patches[:-1]]


def is_of_patches(refinement: Refinement) -> bool:
    """Return whether the values of `of_each_patch` are enough; a criterion from a package may look beyond its patch."""
    return refinement.criterion in LOCAL_CRITERIA or (refinement.criterion == "random" and not refinement.change)


def of_each_patch(fields: Tensor, patches: Sequence[Patch], refinement: Refinement) -> list[Tensor]:
    """Return the value of each patch by itself: its criterion or, for ``random``, the mean that its number is drawn from."""
    if refinement.criterion == "random":
        covered = cover((fields.shape[1], *fields.shape[3:]), patches[0])
        means = (patch_mean(fields, covered, patch) for patch in patches[:-1])
        return [_empty_last(*each, fields, covered) for each in zip(means, patches, strict=False)]
    return criteria_of(fields, patches, refinement)


def from_all_patches(
    told: Sequence[Tensor], window: Sequence[int], patches: Sequence[Patch], refinement: Refinement
) -> list[Tensor]:
    """Return the criterion of every patch of a window ``t, z, y, x``, as `criteria_of`, from values computed patch by patch."""
    if refinement.criterion == "random":
        covered = cover(window, patches[0])
        return [drawn(means, window[1:], covered, patch) for means, patch in zip(told, patches, strict=False)]
    return [*told]


def split_by(
    criteria: Sequence[Tensor], window: Sequence[int], patches: Sequence[Patch], refinement: Refinement
) -> list[Tensor]:
    """Decide which patches of a window ``t, z, y, x`` are split, from their criteria; see `refine` and `criteria_of`."""
    if len(patches) == 1:
        return []
    covered = cover(window, patches[0])
    if refinement.rule == "budget":
        grids = [patch_grid(covered, patch) for patch in patches]
        num_splits = (int(refinement.refine) - math.prod(grids[0])) // _cost(
            grids[0], grids[1], refinement.keep_parents
        )
        return _split_most_variable(criteria, grids, num_splits)
    refined: list[Tensor] = []
    for level, (patch, criterion) in enumerate(zip(patches, criteria, strict=False)):
        exists = holds_cells(window[1:], covered, patch, criterion.device) & ~criterion.isneginf()
        if refined:
            exists = exists & to_children(refined[-1], patches[level - 1], patch)
        if refinement.rule == "threshold":
            split = exists & (criterion > refinement.refine * criterion.amax(dim=(1, 2, 3), keepdim=True))
        else:
            split = _top_share(criterion, exists, refinement.refine)
        refined.append(split)
    return refined


def _criterion(fields: Tensor, covered: Sequence[int], patch: Patch, refinement: Refinement) -> Tensor:
    """Return the criterion of each patch, ``(b, Z, Y, X)``."""
    criterion: Tensor = CRITERIA[refinement.criterion](fields, covered, patch)
    if refinement.change and fields.shape[1] > 1:
        change = fields[:, -1:] - fields[:, -2:-1]
        criterion = criterion + refinement.change * patch_mean(change.square_(), covered, patch)
    return _empty_last(criterion, patch, fields, covered)


def _empty_last(criterion: Tensor, patch: Patch, fields: Tensor, covered: Sequence[int]) -> Tensor:
    """Return a criterion ``(b, Z, Y, X)`` of minus infinity in patches without data, which no rule splits before others."""
    if (held := held_in(fields)) is None:
        return criterion
    return criterion.masked_fill(num_values(fields, held, covered[1:], patch).sum(dim=1) == 0, -math.inf)


def _top_share(variance: Tensor, exists: Tensor, share: float) -> Tensor:
    """Mark the share of the existing patches of each sample with the largest variance, ``(b, Z, Y, X)``."""
    scores = variance.masked_fill(~exists, -1.0).flatten(1)
    rank = scores.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    count = (share * exists.flatten(1).sum(dim=1, keepdim=True)).round()
    return (rank < count).view_as(exists) & exists


def check_window(window: Sequence[int], patches: Sequence[Patch], refinement: Refinement) -> None:
    """Raise ValueError unless a window ``(t, z, y, x)`` of frames and cells can be cut into these patches by this rule."""
    covered = cover(window, patches[0])
    grids = [patch_grid(covered, patch) for patch in patches]
    if len(patches) > 1 and refinement.criterion == "last_change" and window[0] == 1:
        raise ValueError(
            "tokens.criterion last_change compares the last two frames, but the history has one; set data.history to 2 or "
            "more, or take another criterion."
        )
    if refinement.rule != "budget" or len(patches) == 1:
        return
    if covered != tuple(window):
        raise ValueError(
            f"The rule 'budget' needs patches that divide the grid, and {list(patches[0])} do not divide "
            f"{'x'.join(map(str, window))} (t z y x); change tokens.patches or take the rule 'fraction'."
        )
    costs = {_cost(coarse, fine, refinement.keep_parents) for coarse, fine in pairwise(grids)}
    start, most = math.prod(grids[0]), sum(math.prod(grid) for grid in grids[0 if refinement.keep_parents else -1 :])
    if len(costs) != 1:
        raise ValueError(
            "The rule 'budget' needs several levels that all split a patch into the same number of tokens; "
            f"change tokens.patches {[list(patch) for patch in patches]} or take the rule 'fraction'."
        )
    (cost,) = costs
    if not start <= refinement.refine <= most or (refinement.refine - start) % cost:
        nearest = min(max(start + round((refinement.refine - start) / cost) * cost, start), most)
        size = "x".join(map(str, window))
        raise ValueError(
            f"A budget of {refinement.refine:g} tokens cannot be spent exactly on a window of {size} (t z y x): there "
            f"are {start} coarse tokens, {cost} more for each patch that is split, {most} at most; the nearest is {nearest}."
        )


def _split_most_variable(criteria: Sequence[Tensor], grids: Sequence[tuple[int, ...]], num_splits: int) -> list[Tensor]:
    """Split the leaf of each sample with the largest criterion, ``num_splits`` times."""
    if len(criteria) == 1:  # children cannot be split: a sort is enough
        most = criteria[0].flatten(1).argsort(dim=1, descending=True, stable=True)[:, :num_splits]
        is_split = torch.zeros_like(criteria[0], dtype=torch.bool)
        return [is_split.flatten(1).scatter(1, most, True).view_as(is_split)]
    refined = [torch.zeros(criterion.shape, dtype=torch.bool) for criterion in criteria]
    on_cpu = [criterion.cpu() for criterion in criteria]
    for sample in range(len(criteria[0])):
        values = [criterion[sample].tolist() for criterion in on_cpu]
        heap = [(-_at(values[0], place), 0, place) for place in product(*map(range, grids[0][1:]))]
        heapify(heap)
        for _ in range(num_splits):
            _, level, place = heappop(heap)
            refined[level][(sample, *place)] = True
            if level + 1 < len(values):
                ratios = (fine // coarse for coarse, fine in zip(grids[level][1:], grids[level + 1][1:], strict=True))
                for child in product(*(range(p * r, (p + 1) * r) for p, r in zip(place, ratios, strict=True))):
                    heappush(heap, (-_at(values[level + 1], child), level + 1, child))
    return [split.to(criteria[0].device) for split in refined]


def _cost(coarse: Sequence[int], fine: Sequence[int], keep_parents: bool) -> int:
    """Return the number of tokens that splitting a patch adds, from the patch grids ``(T, Z, Y, X)`` of two levels."""
    children = math.prod(f // c for c, f in zip(coarse[1:], fine[1:], strict=True))
    return children * fine[0] - (0 if keep_parents else coarse[0])


def _at(values: list[Any], place: Sequence[int]) -> float:
    z, y, x = place
    value: float = values[z][y][x]
    return value


def to_children(parents: Tensor, coarse: Patch, fine: Patch) -> Tensor:
    """Repeat a value per coarse patch ``(b, Z, Y, X)`` for each of its children at the finer level."""
    rz, ry, rx = parts_along(coarse, fine)
    return repeat(parents, "b Z Y X -> b (Z rz) (Y ry) (X rx)", rz=rz, ry=ry, rx=rx)
