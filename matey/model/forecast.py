"""What the network returns: decoded patches of the predicted frame, and how they become a field."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor

from matey.fields import FieldBatch
from matey.tokens.patches import Patch, patch_grid, patchify, unpatchify


@dataclass(frozen=True)
class LevelForecast:
    """Decoded patches of one level.

    Attributes:
        patch: size of a patch with one frame, ``(1, z, y, x)``.
        row: ``(m,)`` row of each patch in ``patchify(frame, patch)``.
        values: ``(m, f, 1, z, y, x)`` in units of the forecast's scale, relative to its base.
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
        num_tokens: tokens of the batch that this rank processed.
    """

    batch: FieldBatch
    base: Tensor
    scale: Tensor
    levels: Sequence[LevelForecast]
    num_tokens: int

    def in_scale(self, field: Tensor) -> Tensor:
        """Express a field ``(b, f, z, y, x)`` in the units of the decoded patches."""
        return (field - self.base) / self.scale[..., None, None, None]

    def assemble(self) -> Tensor:
        """Put the predicted frame together, ``(b, f, z, y, x)`` in physical units. Needs the tokens of all ranks."""
        change = reduce(torch.add, (self._place(level) for level in self.levels))
        return self.base + self.scale[..., None, None, None] * change

    def _place(self, level: LevelForecast) -> Tensor:
        grid = patch_grid((1, *self.batch.grid), level.patch)
        num_rows = self.batch.num_samples * grid[1] * grid[2] * grid[3]
        canvas = level.values.new_zeros((num_rows, *level.values.shape[1:]), dtype=self.scale.dtype)
        canvas = canvas.index_copy(0, level.row, level.values.to(canvas.dtype))
        return unpatchify(canvas, grid)[:, 0]


def patches_at(level: LevelForecast, field: Tensor) -> Tensor:
    """Cut the patches of ``level`` out of a field ``(b, f, z, y, x)``: ``(m, f, 1, z, y, x)``."""
    return patchify(field[:, None], level.patch)[level.row]
