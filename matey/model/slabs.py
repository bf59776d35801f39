"""What is computed in the cells of a large grid, slab after slab: what is made on the way is made again in the backward pass.

On such a grid it would take as much memory as all else in a step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

KEPT_AT_ONCE = 2**24
"""Cells of a grid up to which what is made in them is kept for the backward pass; beyond, slabs of a quarter of this are made
again."""


def in_slabs(
    work: Callable[..., Tensor], fields: Sequence[Tensor], halos: Sequence[Sequence[int]], weights: Sequence[Tensor]
) -> Tensor:
    """Return ``work(*fields, *weights)``, computed at once on a small grid.

    Args:
        work: function of the fields, with their halos, and the weights; it returns ``(b, c, z, y, x)``.
        fields: ``(b, c, z, y, x)`` each.
        halos: cells ``z, y, x`` by which each of the fields reaches beyond the grid, on each side.
        weights: tensors that are the same in all cells.
    """
    if not is_large(fields[0], halos[0]):
        return work(*fields, *weights)
    return _InSlabs.apply(work, halos, *fields, *weights)


def is_large(field: Tensor, halo: Sequence[int]) -> bool:
    """Whether the grid ``z, y, x`` between the halos of a field is taken in slabs."""
    return math.prod(_grid(field, halo)) > KEPT_AT_ONCE


class _InSlabs(torch.autograd.Function):
    """See `in_slabs`."""

    @staticmethod
    def forward(ctx: Any, work: Callable[..., Tensor], halos: Sequence[Sequence[int]], *inputs: Tensor) -> Tensor:  # noqa: ANN401
        ctx.save_for_backward(*inputs)
        ctx.work, ctx.halos = work, halos
        fields, weights = inputs[: len(halos)], inputs[len(halos) :]
        axis, slabs = _slabs(fields, halos)
        return torch.cat([work(*slab, *weights) for slab in slabs], dim=2 + axis)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        inputs, needed, count = ctx.saved_tensors, ctx.needs_input_grad[2:], len(ctx.halos)
        fields, weights = inputs[:count], inputs[count:]
        totals = [torch.zeros_like(each) if need else None for each, need in zip(inputs, needed, strict=True)]
        # Where a field has no gradient, its own slabs stand for those of its gradient.
        into = [field if total is None else total for field, total in zip(fields, totals, strict=False)]
        axis, slabs = _slabs(fields, ctx.halos)
        first = 0
        for slab, of_slab in zip(slabs, _slabs(into, ctx.halos)[1], strict=True):
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
        return None, None, *totals


def _grid(field: Tensor, halo: Sequence[int]) -> list[int]:
    return [size - 2 * reach for size, reach in zip(field.shape[2:], halo, strict=True)]


def _slabs(fields: Sequence[Tensor], halos: Sequence[Sequence[int]]) -> tuple[int, list[list[Tensor]]]:
    """Cut fields across their slowest axis, so that few cells of each slab lie between the halos; return the axis as well."""
    sizes = _grid(fields[0], halos[0])
    axis = next((axis for axis, size in enumerate(sizes) if size > 1), 0)
    length = sizes[axis]
    layers = max(1, KEPT_AT_ONCE * length // (4 * math.prod(sizes)))
    return axis, [
        [
            field.narrow(2 + axis, first, min(layers, length - first) + 2 * halo[axis])
            for field, halo in zip(fields, halos, strict=True)
        ]
        for first in range(0, length, layers)
    ]
