"""Computes in the cells of a large grid slab after slab, and recomputes intermediate results in the backward pass.

On such a grid, intermediate results would take as much memory as all else in a step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from matey.model.first_derivatives import first_only_of_local

KEPT_AT_ONCE = 3 * 2**28
"""Largest number of intermediate values of a sample that are kept for the backward pass, 3 GiB in float32; with more values,
slabs that keep a quarter of this number are recomputed."""


def kept_by_scheme(inputs: int, channels: int, num_fields: int) -> int:
    """Return how many values per cell `matey.model.stencil` keeps for the backward pass: inputs and window sums."""
    return inputs + 2 * channels + num_fields


def kept_by_stage(inputs: int, channels: int, num_layers: int) -> int:
    """Return how many values per cell `matey.model.stage` keeps for the backward pass: inputs, window and layers."""
    return inputs + channels * (2 + 4 * num_layers) + num_layers


def in_slabs(
    work: Callable[..., Tensor],
    fields: Sequence[Tensor],
    halos: Sequence[Sequence[int]],
    weights: Sequence[Tensor],
    kept: int,
) -> Tensor:
    """Return ``work(*fields, *weights)``, computed at once on a small grid and slab after slab on a large one.

    Args:
        work: function of the fields, with their halos, and the weights; it returns ``(b, c, z, y, x)``.
        fields: ``(b, c, z, y, x)`` each.
        halos: cells ``z, y, x`` by which each of the fields reaches beyond the grid, on each side.
        weights: tensors that are the same in all cells.
        kept: number of values per cell that ``work`` keeps for the backward pass.
    """
    if not is_large(grid_of(fields[0], halos[0]), kept):
        return work(*fields, *weights)
    return _InSlabs.apply(work, halos, kept, *fields, *weights)


def is_large(grid: Sequence[int], kept: int) -> bool:
    """Whether a grid ``z, y, x`` is cut into slabs if ``kept`` values are kept per cell."""
    return math.prod(grid) * kept > KEPT_AT_ONCE


def slab_of(grid: Sequence[int], kept: int) -> tuple[int, int]:
    """Return the axis across which a large grid is cut, its slowest, and the number of layers of cells in a slab."""
    axis = next((axis for axis, size in enumerate(grid) if size > 1), 0)
    return axis, max(1, KEPT_AT_ONCE * grid[axis] // (4 * kept * math.prod(grid)))


def grid_of(field: Tensor, halo: Sequence[int]) -> list[int]:
    """Return the sizes ``z, y, x`` of the grid between the halos of a field."""
    return [size - 2 * reach for size, reach in zip(field.shape[2:], halo, strict=True)]


class _InSlabs(torch.autograd.Function):
    """See `in_slabs`."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        work: Callable[..., Tensor],
        halos: Sequence[Sequence[int]],
        kept: int,
        *inputs: Tensor,
    ) -> Tensor:
        ctx.save_for_backward(*inputs)
        ctx.work, ctx.halos, ctx.kept = work, halos, kept
        fields, weights = inputs[: len(halos)], inputs[len(halos) :]
        axis, slabs = _slabs(fields, halos, kept)
        return torch.cat([work(*slab, *weights) for slab in slabs], dim=2 + axis)

    @staticmethod
    @first_only_of_local
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        inputs, needed, count = ctx.saved_tensors, ctx.needs_input_grad[3:], len(ctx.halos)
        fields, weights = inputs[:count], inputs[count:]
        totals = [torch.zeros_like(each) if need else None for each, need in zip(inputs, needed, strict=True)]
        # Where a field has no gradient, its own slabs stand for those of its gradient.
        into = [field if total is None else total for field, total in zip(fields, totals, strict=False)]
        axis, slabs = _slabs(fields, ctx.halos, ctx.kept)
        first = 0
        for slab, of_slab in zip(slabs, _slabs(into, ctx.halos, ctx.kept)[1], strict=True):
            with torch.enable_grad():
                again = [
                    each.detach().requires_grad_(need) for each, need in zip((*slab, *weights), needed, strict=True)
                ]
                values = ctx.work(*again)
            length = values.shape[2 + axis]
            asked = [each for each in again if each.requires_grad]
            found = iter(torch.autograd.grad(values, asked, gradient.narrow(2 + axis, first, length)))
            for total, need in zip((*of_slab, *totals[count:]), needed, strict=True):
                if need and total is not None:
                    total += next(found)
            first += length
        return None, None, None, *totals


def _slabs(fields: Sequence[Tensor], halos: Sequence[Sequence[int]], kept: int) -> tuple[int, list[list[Tensor]]]:
    """Cut fields into slabs, each with its halos; return the axis that they are cut across as well."""
    sizes = grid_of(fields[0], halos[0])
    axis, layers = slab_of(sizes, kept)
    length = sizes[axis]
    return axis, [
        [
            field.narrow(2 + axis, first, min(layers, length - first) + 2 * halo[axis])
            for field, halo in zip(fields, halos, strict=True)
        ]
        for first in range(0, length, layers)
    ]
