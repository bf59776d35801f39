"""Where every token of a micro-batch sits: integers and positions, no features.

Token sets: in ``mix`` the tokens are the leaves of the refinement, in ``mul`` a split patch keeps its tokens beside those of
its children. In ``mul`` the coarsest tokens of a sample are one family, the children of each split patch another.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property

import torch
from torch import Tensor

from matey.tokens.patches import Patch, cover, holds_cells, patch_grid
from matey.tokens.refinement import to_children


@dataclass(frozen=True)
class TokenLayout:
    """The packed tokens of a micro-batch, sample after sample; within one, by place (a parent's children together), then time.

    Where parents are kept, the levels of a sample follow each other, coarse to fine.

    Attributes:
        batch: ``(n,)`` index of the `FieldBatch` in the micro-batch.
        sample: ``(n,)`` index of the sample in the whole micro-batch.
        level: ``(n,)`` level of refinement, 0 is the coarsest.
        row: ``(n,)`` row of the token's patch in ``patchify(history, patches[level])`` of its batch.
        place: ``(n, 3)`` position z, y, x in the patch grid of its level.
        time: ``(n,)`` position in time, in patches of its level.
        family: ``(n,)`` number of the token's family within its sample; 0 for the coarsest tokens, and for all in ``mix``.
        band: ``(n, 4)`` position t, z, y, x on the grid on which the token's family counts times and lines: that of the
            coarsest patches, or of its own level where parents are kept.
        is_last: ``(n,)`` whether the token holds the last frame, and so carries the prediction.
        is_leaf: ``(n,)`` whether the token's patch is not split.
        centre: ``(n, 4)`` centre t, z, y, x in the unit domain.
        extent: ``(n, 4)`` size t, z, y, x in the unit domain.
    """

    batch: Tensor
    sample: Tensor
    level: Tensor
    row: Tensor
    place: Tensor
    time: Tensor
    family: Tensor
    band: Tensor
    is_last: Tensor
    is_leaf: Tensor
    centre: Tensor
    extent: Tensor

    @property
    def num_tokens(self) -> int:
        """Number of tokens ``n``."""
        return self.sample.shape[0]

    def select(self, index: Tensor | slice) -> TokenLayout:
        """Return the layout of some of the tokens, in the order of ``index``."""
        return TokenLayout(**{field.name: getattr(self, field.name)[index] for field in fields(self)})


def layout_tokens(
    shapes: Sequence[tuple[int, ...]],
    refined: Sequence[Sequence[Tensor]],
    patches: Sequence[Patch],
    device: torch.device | str | None = None,
    *,
    keep_parents: bool = False,
) -> TokenLayout:
    """Lay out every sample's refinement as one packed list. Patches that hold none of a grid's cells have no tokens.

    Args:
        shapes: shape ``(b, t, z, y, x)`` of the fields of each batch.
        refined: masks ``(b, Z, Y, X)`` of the patches that are split, one per batch and level; the finest level has
            none.
        patches: levels from coarse to fine.
        device: the device of the layout's tensors; it must be that of ``refined``.
        keep_parents: whether a patch that is split keeps its tokens.

    Raises:
        ValueError: a patch does not divide the number of frames.
    """
    parts, first_sample = [], 0
    for number, ((num_samples, *window), splits) in enumerate(zip(shapes, refined, strict=True)):
        batch = _Batch(number, first_sample, num_samples, tuple(window), tuple(patches), keep_parents)
        parts.append(batch.layout(splits, device))
        first_sample += num_samples
    return joined(parts)


@dataclass(frozen=True)
class _Batch:
    """Samples of one window ``t, z, y, x`` and how they are cut."""

    number: int
    first_sample: int
    num_samples: int
    window: tuple[int, ...]
    patches: tuple[Patch, ...]
    keep_parents: bool

    @cached_property
    def grids(self) -> list[tuple[int, int, int, int]]:
        """Patches along ``t, z, y, x`` at each level."""
        covered = cover(self.window, self.patches[0])
        return [patch_grid(covered, patch) for patch in self.patches]

    def layout(self, splits: Sequence[Tensor], device: torch.device | str | None) -> TokenLayout:
        """Lay out the tokens of the samples."""
        covered = cover(self.window, self.patches[0])
        exists = torch.ones((self.num_samples, *self.grids[0][1:]), dtype=torch.bool, device=device)
        parts, keys = [], []
        for level, patch in enumerate(self.patches):
            exists = exists & holds_cells(self.window[1:], covered, patch, device)
            split = splits[level] & exists if level < len(splits) else torch.zeros_like(exists)
            sample, *places = (exists if self.keep_parents else exists & ~split).nonzero(as_tuple=True)
            place = torch.stack(places, 1)
            keys.append(self._tree_key(sample, place, level).repeat_interleave(self.grids[level][0]))
            parts.append(self._tokens(sample, place, ~split[sample, *places], level))
            if level < len(splits):
                exists = to_children(split, patch, self.patches[level + 1])
        # Tokens come level by level; sorting their keys puts them in the order of a depth-first walk through the tree.
        return joined(parts).select(torch.argsort(torch.cat(keys), stable=True))

    def _tree_key(self, sample: Tensor, place: Tensor, level: int) -> Tensor:
        """Number a patch by its sample, its coarsest ancestor, then its ancestors' and its own number among siblings.

        Where parents are kept, the level comes right after the sample.
        """
        key, radix = sample * len(self.patches) + (level if self.keep_parents else 0), self.grids[0][1:]
        for depth, patch in enumerate(self.patches):
            number = torch.zeros_like(key)
            if depth <= level:
                own_patch = self.patches[level][1:]
                for p, cells, own, size in zip(place.unbind(1), patch[1:], own_patch, radix, strict=True):
                    number = number * size + (p // (cells // own)) % size
            key = key * math.prod(radix) + number
            if depth + 1 < len(self.patches):
                radix = _ratio(patch, self.patches[depth + 1])
        return key

    def _tokens(self, sample: Tensor, place: Tensor, is_leaf: Tensor, level: int) -> TokenLayout:
        """Repeat the patches of one level over time and say where each token lies."""
        patch, device = self.patches[level], sample.device
        times, Z, Y, X = self.grids[level]
        spatial_row = ((sample * Z + place[:, 0]) * Y + place[:, 1]) * X + place[:, 2]
        family = self._family(place, level)
        time = torch.arange(times, device=device).repeat(len(sample))
        sample, spatial_row, place, family, is_leaf = (
            column.repeat_interleave(times, dim=0) for column in (sample, spatial_row, place, family, is_leaf)
        )
        extent = torch.tensor([cells / size for cells, size in zip(patch, self.window, strict=True)], device=device)
        position = torch.cat([time[:, None], place], 1)
        ratio = torch.tensor([c // p for c, p in zip(self.patches[0], patch, strict=True)], device=device)
        centre = (position + 0.5) * extent
        return TokenLayout(
            batch=torch.full_like(time, self.number),
            sample=self.first_sample + sample,
            level=torch.full_like(time, level),
            row=spatial_row * times + time,
            place=place,
            time=time,
            family=family,
            band=position if self.keep_parents else position // ratio,
            is_last=time == times - 1,
            is_leaf=is_leaf,
            centre=centre,
            extent=extent.expand_as(centre),
        )

    def _family(self, place: Tensor, level: int) -> Tensor:
        """Number the parents of all levels on from 1; the coarsest tokens have none, and without parents all are one."""
        if level == 0 or not self.keep_parents:
            return torch.zeros_like(place[:, 0])
        first = 1 + sum(math.prod(grid[1:]) for grid in self.grids[: level - 1])
        parent = torch.zeros_like(place[:, 0])
        ratio = _ratio(self.patches[level - 1], self.patches[level])
        for p, size, r in zip(place.unbind(1), self.grids[level - 1][1:], ratio, strict=True):
            parent = parent * size + p // r
        return first + parent


def _ratio(coarse: Patch, fine: Patch) -> tuple[int, int, int]:
    """How many fine patches lie along ``z, y, x`` of a coarse one."""
    z, y, x = (c // f for c, f in zip(coarse[1:], fine[1:], strict=True))
    return z, y, x


def joined(parts: Sequence[TokenLayout]) -> TokenLayout:
    """Return the layout of the tokens of all parts, one after the other."""
    names = [field.name for field in fields(TokenLayout)]
    return TokenLayout(**{name: torch.cat([getattr(part, name) for part in parts]) for name in names})
