"""Decoded blocks of cells become a field: where blocks overlap they are blended, so that patches do not show.

A block is decoded with a margin that reaches into its neighbours, and weighted by a ramp that falls to zero across it. Between
equal neighbours the ramps add up to one. Without a margin the blocks lie side by side.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor

from matey.tokens.patches import Patch, patch_grid

SMALLEST_WEIGHT = 1e-6  # that of a cell is at least one eighth where it has a block at all


@dataclass(frozen=True)
class Blocks:
    """Decoded blocks of the patches of one level.

    Attributes:
        values: ``(m, s, f, z, y, x)``, the ``s`` blocks of each of ``m`` patches with their margins, weighted by `ramp`.
        row: ``(m,)`` row of each patch in ``patchify(frame, patch)`` of what the patches cover.
        patch: size of a patch with one frame, ``(1, z, y, x)``.
        cells: size ``z, y, x`` of a block without its margins.
        margin: cells ``z, y, x`` of a margin, at most half a block.
    """

    values: Tensor
    row: Tensor
    patch: Patch
    cells: tuple[int, ...]
    margin: tuple[int, ...]


def blend(
    levels: Sequence[Blocks], num_samples: int, covered: Sequence[int], periodic: Sequence[bool], *, add_levels: bool
) -> Tensor:
    """Put the blocks of one group of samples together.

    Args:
        levels: blocks of every level, coarse to fine.
        num_samples: number of samples ``b``.
        covered: cells ``z, y, x`` that the patches cover.
        periodic: whether margins reach around the domain along ``z, y, x``.
        add_levels: whether finer blocks are added to what coarser ones say; otherwise the blocks of all levels share the
            domain, and those of two levels are blended where they meet.

    Returns:
        ``(b, f, z, y, x)`` on what the patches cover; zero where there is no block.
    """
    total = weight = 0
    for blocks in levels:
        # Field by field: all at once would be the peak of a step's memory on a rank that decodes little of the domain.
        decoded = torch.cat(
            [_fold(v, blocks, blocks.row, num_samples, covered, periodic) for v in blocks.values.split(1, dim=2)], dim=1
        )
        ones = ramp(blocks.cells, blocks.margin).to(blocks.values)
        if add_levels:
            # Beside a patch that is not split, what is added fades to nothing: the weights are those of a whole level.
            everywhere = torch.arange(math.prod(patch_grid((1, *covered), blocks.patch)), device=blocks.row.device)
            ones = ones.expand(len(everywhere), blocks.values.shape[1], 1, *ones.shape)
            total = total + decoded / _fold(ones, blocks, everywhere, 1, covered, periodic)
        else:
            ones = ones.expand(len(blocks.row), blocks.values.shape[1], 1, *ones.shape)
            total = total + decoded
            weight = weight + _fold(ones, blocks, blocks.row, num_samples, covered, periodic)
    return total if add_levels else total / weight.clamp_min(SMALLEST_WEIGHT)


def ramp(cells: Sequence[int], margin: Sequence[int]) -> Tensor:
    """Return the weight of each cell of a block with its margins, ``(z, y, x)``.

    A product of ramps that are one half on the borders of the block.
    """
    ramps = []
    for size, reach in zip(cells, margin, strict=True):
        place = torch.arange(-reach, size + reach) + 0.5
        nearest = torch.minimum(place, size - place)  # to a border, negative in the margin
        ramps.append((0.5 + nearest / (2 * reach)).clamp(max=1) if reach else torch.ones(size))
    return ramps[0][:, None, None] * ramps[1][:, None] * ramps[2]


def _fold(
    values: Tensor, blocks: Blocks, row: Tensor, num_samples: int, covered: Sequence[int], periodic: Sequence[bool]
) -> Tensor:
    """Add blocks ``(m, s, f, z, y, x)`` with their margins up, ``(b, f, z, y, x)``."""
    Z, Y, X = patch_grid((1, *covered), blocks.patch)[1:]
    sz, sy, sx = (p // c for p, c in zip(blocks.patch[1:], blocks.cells, strict=True))
    pattern = "(b Z Y X) (sz sy sx) f z y x -> b f (Z sz) z (Y sy) y (X sx) x"
    field = values.new_zeros(num_samples * Z * Y * X, *values.shape[1:]).index_copy_(0, row, values)
    field = rearrange(field, pattern, Z=Z, Y=Y, X=X, sz=sz, sy=sy, sx=sx)
    for axis, (margin, wraps) in enumerate(zip(blocks.margin, periodic, strict=True)):
        field = _fold_axis(field, 2 + axis, margin, wraps)
    return field


def _fold_axis(field: Tensor, axis: int, margin: int, wraps: bool) -> Tensor:
    """Join axis ``axis`` (block) and the next (cell with margins) to one axis of cells."""
    cells, count = axis + 1, field.shape[axis]
    width = field.shape[cells] - 2 * margin
    before, joined, after = field.split([margin, width, margin], dim=cells)
    if margin:
        joined = joined.clone(memory_format=torch.contiguous_format)
        # The margin after a block lies over the begin of the next one, the margin before it over the end of the last.
        joined.narrow(axis, 1, count - 1).narrow(cells, 0, margin).add_(after.narrow(axis, 0, count - 1))
        joined.narrow(axis, 0, count - 1).narrow(cells, width - margin, margin).add_(before.narrow(axis, 1, count - 1))
        if wraps:
            joined.narrow(axis, 0, 1).narrow(cells, 0, margin).add_(after.narrow(axis, count - 1, 1))
            joined.narrow(axis, count - 1, 1).narrow(cells, width - margin, margin).add_(before.narrow(axis, 0, 1))
    return joined.flatten(axis, cells)
