"""What the network returns: decoded patches of the predicted frame, and how they become a field."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import torch
from einops import rearrange
from torch import Tensor

from matey.fields import FieldBatch
from matey.tokens.patches import Patch, pad, patch_grid, patchify, unpatchify


@dataclass(frozen=True)
class LevelForecast:
    """Decoded patches of one level.

    Attributes:
        patch: size of a patch with one frame, ``(1, z, y, x)``.
        row: ``(m,)`` row of each patch in ``patchify(frame, patch)`` of what the patches cover.
        values: ``(m, f, 1, z, y, x)`` in units of the forecast's scale, relative to its base; zero beyond the grid.
    """

    patch: Patch
    row: Tensor
    values: Tensor


@dataclass(frozen=True)
class Forecast:
    """The predicted frame of one `FieldBatch`, as far as this rank holds its tokens: base + scale x patches.

    Attributes:
        batch: what was predicted from.
        base: ``(b, f, z, y, x)`` or ``(b, f, 1, 1, 1)`` in physical units; the last frame when the change is predicted.
        scale: ``(b, f)`` in physical units.
        levels: decoded patches; each cell lies in one of them.
        covered: size ``z, y, x`` of what the patches cover, at least the grid.
        num_tokens: tokens of the batch that this rank processed.
    """

    batch: FieldBatch
    base: Tensor
    scale: Tensor
    levels: Sequence[LevelForecast]
    covered: tuple[int, int, int]
    num_tokens: int

    def in_scale(self, field: Tensor) -> Tensor:
        """Express a field ``(b, f, z, y, x)`` in the units of the decoded patches."""
        return (field - self.base) / self.scale[..., None, None, None]

    def assemble(self) -> Tensor:
        """Put the predicted frame together, ``(b, f, z, y, x)`` in physical units. Needs the tokens of all ranks."""
        z, y, x = self.batch.grid
        change = reduce(torch.add, (self._place(level) for level in self.levels))[..., :z, :y, :x]
        return self.base + self.scale[..., None, None, None] * change

    def num_rows(self, level: LevelForecast) -> int:
        """Return how many rows of ``level`` a sample would have, were it cut into its patches throughout."""
        return math.prod(patch_grid((1, *self.covered), level.patch))

    def patches_at(self, level: LevelForecast, field: Tensor) -> Tensor:
        """Cut the patches of ``level`` out of a field ``(b, f, z, y, x)``, zero beyond it: ``(m, f, 1, z, y, x)``."""
        return patchify(pad(field, self.covered)[:, None], level.patch)[level.row]

    def _place(self, level: LevelForecast) -> Tensor:
        grid = patch_grid((1, *self.covered), level.patch)
        num_rows = self.batch.num_samples * self.num_rows(level)
        canvas = level.values.new_zeros((num_rows, *level.values.shape[1:]), dtype=self.scale.dtype)
        canvas = canvas.index_copy(0, level.row, level.values.to(canvas.dtype))
        return unpatchify(canvas, grid)[:, 0]


def values_of_parents(parents: LevelForecast, covered: Sequence[int], patch: Patch, row: Tensor) -> Tensor:
    """Cut what was decoded for the parents of patches out for each of their children.

    Args:
        parents: holds the parents of all the children.
        covered: size ``z, y, x`` of what the patches of all levels cover.
        patch: of the children.
        row: ``(m,)`` row of each child in ``patchify(frame, patch)``.

    Returns:
        ``(m, f, 1, z, y, x)``.
    """
    coarse, fine = (patch_grid((1, *covered), size)[1:] for size in (parents.patch, patch))
    rz, ry, rx = (f // c for c, f in zip(coarse, fine, strict=True))
    sample, z, y, x = torch.unravel_index(row, (1 + int(row.max()) // math.prod(fine) if len(row) else 1, *fine))
    parent_row = ((sample * coarse[0] + z // rz) * coarse[1] + y // ry) * coarse[2] + x // rx
    sibling = (z % rz * ry + y % ry) * rx + x % rx
    by_row = parents.row.argsort()
    parent = by_row[torch.searchsorted(parents.row[by_row], parent_row)]
    pieces = rearrange(parents.values, "m f t (rz z) (ry y) (rx x) -> (m rz ry rx) f t z y x", rz=rz, ry=ry, rx=rx)
    return pieces[parent * (rz * ry * rx) + sibling]
