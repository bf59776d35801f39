"""Sums over patches that are the same to the last bit however fields are cut, so that the cut changes no decision.

`torch.sum` adds in an order that depends on shape, strides and threads. Here both halves of an axis are added cell by cell,
again and again: a tree of additions that depends on the length of the axis alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from einops import rearrange
from torch import Tensor

from matey.tokens.patches import Patch, pad

AT_ONCE = 2**20
"""Number of values that are summed at once."""


def folded(values: Tensor, axis: int) -> Tensor:
    """Sum along an axis, which is removed."""
    while (length := values.shape[axis]) > 1:
        half = length // 2
        pairs = values.narrow(axis, 0, half) + values.narrow(axis, half, half)
        values = pairs if length == 2 * half else torch.cat([pairs, values.narrow(axis, 2 * half, 1)], dim=axis)
    return values.squeeze(axis)


def few_fields(fields: Tensor) -> Iterator[Tensor]:
    """Yield a few fields of ``(b, t, f, z, y, x)`` at a time, so that intermediate results stay small."""
    size = fields[:, :, 0].numel()
    yield from fields.split(max(1, AT_ONCE // size), dim=2)


def in_patches(fields: Tensor, covered: Sequence[int], patch: Patch) -> Tensor:
    """View fields ``(b, t, f, z, y, x)`` by the cells of each spatial patch, ``(b, t, f, Z, pz, Y, py, X, px)``.

    Args:
        fields: the fields.
        covered: size ``z, y, x`` that the patches cover; values beyond the fields are zero.
        patch: size of a patch; only its spatial extent counts.
    """
    _, pz, py, px = patch
    return rearrange(pad(fields, covered), "b t f (Z pz) (Y py) (X px) -> b t f Z pz Y py X px", pz=pz, py=py, px=px)


def over_patches(cells: Tensor) -> Tensor:
    """Sum the result of `in_patches` over the frames and the cells of each patch, ``(b, f, Z, Y, X)``."""
    # The outermost axes first: their sums run along the others, and little is left for the innermost.
    for axis in (1, 3, 4, 5):
        cells = folded(cells, axis)
    return cells


def off_mean(cells: Tensor, total: Tensor, fields: Tensor, covered: Sequence[int], patch: Patch) -> Tensor:
    """Sum the squared deviations of cells from the mean of their patch, ``(b, f, Z, Y, X)``.

    Args:
        cells: the fields as `in_patches` returns them.
        total: the sums of `over_patches`.
        fields: the fields ``(b, t, f, z, y, x)``.
        covered: size ``z, y, x`` that the patches cover.
        patch: size of a patch.
    """
    mean = total / (fields.shape[1] * num_cells(fields.shape[3:], covered, patch, fields).clamp_min(1))
    off = cells - mean[:, None, :, :, None, :, None, :, None]
    if tuple(covered) != fields.shape[3:]:
        off = off * in_patches(torch.ones_like(fields[:1, :1, :1]), covered, patch)
    return over_patches(off.square_())


def num_cells(grid: Sequence[int], covered: Sequence[int], patch: Patch, like: Tensor) -> Tensor:
    """Return the number of cells of a grid ``z, y, x`` in each patch, ``(Z, Y, X)`` in the type of ``like``."""
    z, y, x = (
        (size - torch.arange(0, end, cells, device=like.device)).clamp(0, cells).to(like.dtype)
        for size, end, cells in zip(grid, covered, patch[1:], strict=True)
    )
    return z[:, None, None] * y[:, None] * x
