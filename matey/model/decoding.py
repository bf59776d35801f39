"""Decodes tokens to the values in their patches: the mirror of the stem, for the network of the paper.

A token's width limits what it carries of its patch, so it cannot repeat a rough field to the last digit. The network on cells
(`matey.model.cells`) does not have this limit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from matey.model.given import Rows, chosen
from matey.model.modules import ModuleList, packed
from matey.tokens.patches import Patch, factor_stages, patch_grid, unpatchify


class PatchDecoder(nn.Module):
    """Decode tokens of one level to the values of a single frame in their patches.

    Args:
        patch: size ``t z y x`` of the level's patches.
        num_fields: rows of the vocabulary.
        width: embedding width of a token.
    """

    def __init__(self, patch: Patch, num_fields: int, width: int) -> None:
        super().__init__()
        self.patch = (1, *patch[1:])
        self.cells, *merges = factor_stages(self.patch)
        self.splits = merges[::-1] or [(1, 1, 1, 1)]
        hidden = width // 2
        widths = [width] + [width // 4] * (len(self.splits) - 1) + [hidden]
        self.stages = ModuleList(
            [
                nn.Linear(w_in, math.prod(split) * w_out)
                for split, (w_in, w_out) in zip(self.splits, pairwise(widths), strict=True)
            ]
        )
        # Zero, so that an untrained model predicts no change, or the mean of a field.
        self.field_weight = nn.Parameter(torch.zeros(num_fields, hidden, math.prod(self.cells)))
        self.field_bias = nn.Parameter(torch.zeros(num_fields, math.prod(self.cells)))

    def forward(self, tokens: Tensor, counts: Sequence[int], rows: Sequence[Rows]) -> Tensor:
        """Decode the tokens of every batch in one call; the result is one tensor, see `matey.model.modules`.

        Args:
            tokens: ``(m, e)``, the tokens to decode, batch after batch.
            counts: number of tokens of each batch; it may be 0.
            rows: the rows of each batch's fields in the vocabulary.

        Returns:
            The patches ``(m, f, z, y, x)`` of each batch, see `shapes`.
        """
        grid = [1, 1, 1, 1]
        for number, (stage, split) in enumerate(zip(self.stages, self.splits, strict=True)):
            tokens = _split(stage(tokens if number == 0 else F.gelu(tokens)), grid, split)
            grid = [g * s for g, s in zip(grid, split, strict=True)]
        T, Z, Y, X = grid
        t, z, y, x = self.cells
        decoded = []
        features = F.gelu(tokens).split([count * math.prod(grid) for count in counts])
        for of_batch, row in zip(features, rows, strict=True):
            weight = rearrange(chosen(self.field_weight, row.predicted), "f e w -> e (f w)")
            values = torch.addmm(chosen(self.field_bias, row.predicted).flatten(), of_batch, weight)
            pattern = "(m T Z Y X) (f t z y x) -> m f (T t) (Z z) (Y y) (X x)"
            decoded.append(rearrange(values, pattern, T=T, Z=Z, Y=Y, X=X, t=t, z=z, y=y, x=x))
        return packed(decoded)

    def shapes(self, counts: Sequence[int], rows: Sequence[Rows]) -> list[tuple[int, ...]]:
        """Return the shape of each batch's patches, ``(m, f, 1, z, y, x)``."""
        return [(count, len(row.predicted), *self.patch) for count, row in zip(counts, rows, strict=True)]


def placed(levels: Sequence[Tensor], rows: Sequence[Tensor], covered: Sequence[int]) -> Tensor:
    """Put the patches of every level where they belong; values add up where parents keep their tokens.

    Args:
        levels: the patches ``(m, f, 1, z, y, x)`` of each level.
        rows: rows ``(m,)`` of these patches in ``patchify`` of one frame.
        covered: number of samples, and of cells ``z, y, x`` that the coarsest patches cover.

    Returns:
        ``(b, f, z, y, x)``.
    """
    number, *cells = covered
    found = []
    for patches, row in zip(levels, rows, strict=True):
        grid = patch_grid((1, *cells), (1, *patches.shape[-3:]))
        empty = patches.new_zeros(number * math.prod(grid), *patches.shape[1:])
        found.append(unpatchify(empty.index_copy(0, row, patches), grid)[:, 0])
    return sum(found[1:], found[0])


def _split(cells: Tensor, grid: Sequence[int], factor: Sequence[int]) -> Tensor:
    (T, Z, Y, X), (t, z, y, x) = grid, factor
    pattern = "(m T Z Y X) (t z y x e) -> (m T t Z z Y y X x) e"
    return rearrange(cells, pattern, T=T, Z=Z, Y=Y, X=X, t=t, z=z, y=y, x=x)
