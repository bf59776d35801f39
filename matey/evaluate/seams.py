"""Measures visible patch borders in predictions: jumps of the error across borders, compared with jumps inside patches."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from matey.fields import FieldBatch
from matey.tokens.layout import TokenLayout
from matey.tokens.patches import Patch, cover, patch_grid, unpatchify


def jumps(error: Tensor, patch_of_cell: Tensor) -> Tensor:
    """Average the jumps of an error between neighbouring cells, across borders of patches and inside patches.

    Args:
        error: ``(b, f, z, y, x)``, the error of a prediction.
        patch_of_cell: ``(b, z, y, x)``, number of each cell's patch, see `patches_of_cells`.

    Returns:
        ``(2, b, f)``, mean jump across borders and inside patches, in the unit of the field; NaN without such neighbours.
    """
    sums = error.new_zeros(2, *error.shape[:2])
    counts = error.new_zeros(2, error.shape[0], 1)
    for axis in (1, 2, 3):
        across = (patch_of_cell.diff(dim=axis) != 0)[:, None]  # (b, 1, z, y, x), one cell fewer along the axis
        jump = error.diff(dim=axis + 1).abs()
        for row, chosen in enumerate((across, ~across)):
            sums[row] += (jump * chosen).sum(dim=(2, 3, 4))
            counts[row] += chosen.sum(dim=(2, 3, 4))
    return sums / counts


def patches_of_cells(batch: FieldBatch, patches: Sequence[Patch], layout: TokenLayout) -> Tensor:
    """Return the number of the leaf patch around each cell of the last frame, ``(b, z, y, x)``."""
    window = (batch.num_frames, *batch.grid)
    covered = (1, *cover(window, patches[0])[1:])
    z, y, x = batch.grid
    numbers = (_numbers(layout, level, patch, batch, covered) for level, patch in enumerate(patches))
    return torch.stack(list(numbers)).amax(dim=0)[:, :z, :y, :x]


def _numbers(layout: TokenLayout, level: int, patch: Patch, batch: FieldBatch, covered: Sequence[int]) -> Tensor:
    """Return the number of one level's leaf at each of its cells, -1 at all others: ``(b, z, y, x)``."""
    leaf = (layout.is_last & layout.is_leaf & (layout.level == level)).nonzero(as_tuple=True)[0]
    frame_patch = (1, *patch[1:])
    grid = patch_grid(covered, frame_patch)
    canvas = leaf.new_full((batch.num_samples * grid[1] * grid[2] * grid[3],), -1)
    canvas[layout.row[leaf] // (batch.num_frames // patch[0])] = leaf
    cells = canvas[:, None, None, None, None, None].expand(-1, 1, *frame_patch)
    return unpatchify(cells, grid)[:, 0, 0]
