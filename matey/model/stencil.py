"""A learnt numerical scheme on a grid: from a small window on the last frame and on the change since the one before.

The same weights act in every cell; each sample mixes them as its lead time and its scales ask for. A scheme that follows
another in a cascade has what that predicts in its window as well. Per cell:

    window --> p, q --> p q --> linear --> GELU --> change of each field    products of neighbours, as in fluxes and reactions,
      |         |                                      ^
      |         '--------------> linear ---------------|                    what is linear across fields
      '--> stencil of the field on itself -------------'                    and within one, as diffusion and extrapolation
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from matey.model.given import Rows
from matey.model.one_tensor import packed

aten = torch.ops.aten

NUM_STENCILS = 4
"""Linear stencils of a field on itself that each sample mixes."""

NUM_INPUTS = 2
"""Values of a field in a cell: the last frame, and the change since the one before."""

CELLS_AT_ONCE = 4096
"""Cells of small grids that are computed together."""

MAX_PRODUCT = 10.0
"""Products count up to here. Were they bounded by nothing, a spike in a rollout would grow by its square in every step."""


KEPT_AT_ONCE = 2**24
"""Cells of a grid up to which what is seen in them is kept for the backward pass; beyond, slabs of a quarter of this are seen
again."""

AT_ONCE, AT_ONCE_ON_GPU = 2**13, 2**20
"""Cells whose products are computed at once: what is made on the way is then small, and stays in the cache of a CPU."""


class Scheme(nn.Module):
    """Predict the change of every cell of a grid from the window around it.

    Args:
        halo: number of cells by which the window reaches along ``z, y, x``.
        num_fields: rows of the vocabulary.
        width: width of a sample's conditions.
        channels: products per cell.
        follows: whether it sees what another scheme predicts.
    """

    def __init__(
        self, halo: Sequence[int], num_fields: int, width: int, channels: int, *, follows: bool = False
    ) -> None:
        super().__init__()
        self.sides, self.channels = [2 * reach + 1 for reach in halo], channels
        window = math.prod(self.sides)
        self.field_weight = nn.Parameter(torch.empty(num_fields, window, NUM_INPUTS, 2 * channels))
        # Zero, as what p and q and their products give: an untrained model predicts no change.
        self.field_stencils = nn.Parameter(torch.zeros(num_fields, window, NUM_INPUTS, NUM_STENCILS))
        self.field_linear = nn.Parameter(torch.zeros(num_fields, 2 * channels))
        self.field_out = nn.Parameter(torch.zeros(num_fields, channels))
        self.field_predicted = nn.Parameter(torch.zeros(num_fields, window, 2 * channels)) if follows else None
        self.mix = nn.Linear(channels, channels)
        self.expand = nn.Linear(width, width // 2)
        self.modulate = nn.Linear(width // 2, 7 * channels + NUM_STENCILS)

    def forward(
        self, wide: Sequence[Tensor], predicted: Sequence[Tensor], conditions: Tensor, rows: Sequence[Rows]
    ) -> Tensor:
        """Predict the changes of every batch, in one call and to one tensor, see `matey.model.one_tensor`.

        Args:
            wide: inputs ``(b, 2, f, z, y, x)`` of each batch with a halo, see `matey.model.local.local_inputs`.
            predicted: changes ``(b, f, z, y, x)`` of each batch in the same cells that the scheme before it predicts; empty
                where it follows none.
            conditions: ``(b, e)``, the conditions of the samples, batch after batch.
            rows: the rows of each batch's fields in the vocabulary.

        Returns:
            The changes of the batches ``(b, f, z, y, x)``, see `shapes`.
        """
        told = self.modulate(F.gelu(self.expand(conditions))).split([len(inputs) for inputs in wide])
        seen = [inputs.flatten(1, 2) for inputs in wide]
        if predicted:
            seen = [torch.cat(both, dim=1) for both in zip(seen, predicted, strict=True)]
        return packed([self._of_batch(*batch) for batch in zip(seen, told, rows, strict=True)])

    def shapes(self, wide: Sequence[Tensor], rows: Sequence[Rows]) -> list[tuple[int, ...]]:
        """Return the shape of each batch's changes, ``(b, f, z, y, x)``."""
        return [
            (len(w), len(row.predicted), *(size - side + 1 for size, side in zip(w.shape[3:], self.sides, strict=True)))
            for w, row in zip(wide, rows, strict=True)
        ]

    def _of_batch(self, wide: Tensor, told: Tensor, row: Rows) -> Tensor:
        kernel, offset, out = self._folded(told.to(wide.dtype), row)
        weight, bias = self.mix.weight.to(wide.dtype), self.mix.bias.to(wide.dtype)
        grid = [size - side + 1 for size, side in zip(wide.shape[2:], self.sides, strict=True)]
        # A few samples at a time: what is seen of them still lies in the cache when it is multiplied.
        number = max(1, CELLS_AT_ONCE // math.prod(grid))
        changes_of = _InSlabs.apply if math.prod(grid) > KEPT_AT_ONCE else _changes
        changes = [
            changes_of(fields, of_samples, at, to_fields, weight, bias)
            for fields, of_samples, at, to_fields in zip(
                *(values.split(number) for values in (wide, kernel, offset, out)), strict=True
            )
        ]
        z, y, x = grid
        return rearrange(torch.cat(changes), "b (z y x) f -> b f z y x", z=z, y=y, x=x)

    def _folded(self, told: Tensor, row: Rows) -> tuple[Tensor, Tensor, Tensor]:
        """Return what the fields' weights come to for each sample.

        All that is linear is folded into one stencil from each field to each: none of it is computed per cell.

        Returns:
            Kernels ``(b, 2 c + f, i f, wz, wy, wx)`` from all inputs to ``p``, ``q`` and the linear part of the fields to
            predict, with ``f`` more inputs where it follows another scheme; offsets ``(b, 2 c + f)``; the map ``(b, c, f)``
            from the mixed products to their changes.
        """
        num_fields, channels, dtype = len(row.predicted), self.channels, told.dtype
        of_products, offset, of_linear, of_out, of_stencils = told.split(
            [2 * channels, 2 * channels, 2 * channels, channels, NUM_STENCILS], dim=1
        )
        weight = self.field_weight[row.inputs].to(dtype) / math.sqrt(num_fields)
        stencils, linear, out = (
            weights[row.predicted].to(dtype) for weights in (self.field_stencils, self.field_linear, self.field_out)
        )
        # Its rows are the inputs: what is given has no stencil on itself.
        same = torch.eye(len(row.inputs), num_fields, dtype=dtype, device=told.device)
        kernel = torch.cat(
            [
                torch.einsum("f w i c, b c -> b c i f w", weight, 1 + of_products),
                torch.einsum("f w i c, b c, g c -> b g i f w", weight, 1 + of_linear, linear)
                + torch.einsum("g w i s, b s, f g -> b g i f w", stencils, 1 + of_stencils, same),
            ],
            dim=1,
        ).flatten(2, 3)
        if self.field_predicted is not None:
            weight = self.field_predicted[row.predicted].to(dtype) / math.sqrt(num_fields)
            of_predicted = [
                torch.einsum("f w c, b c -> b c f w", weight, 1 + of_products),
                torch.einsum("f w c, b c, g c -> b g f w", weight, 1 + of_linear, linear),
            ]
            kernel = torch.cat([kernel, torch.cat(of_predicted, dim=1)], dim=2)
        return kernel.unflatten(3, self.sides), F.pad(offset, (0, num_fields)), (1 + of_out)[:, :, None] * out.T


def _changes(fields: Tensor, kernel: Tensor, offset: Tensor, out: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return the changes ``(b, m, f)`` in the cells of samples ``(b, c, z, y, x)``, which have a halo."""
    # Channels last: both passes of a convolution of few channels are then up to twice as fast on CPUs.
    fields = rearrange(fields, "b c z y x -> b z y x c").contiguous()
    changes: Tensor = _Products.apply(_convolve(fields, kernel, offset), weight, bias, out)
    return changes


class _InSlabs(torch.autograd.Function):
    """The changes of a large grid, slab after slab: what is seen in its cells is not kept but seen again in the backward pass.

    On such a grid it would take as much memory as all else in a step.
    """

    @staticmethod
    def forward(ctx: Any, fields: Tensor, *weights: Tensor) -> Tensor:  # noqa: ANN401
        ctx.save_for_backward(fields, *weights)
        return torch.cat([_changes(slab, *weights) for slab in _slabs(fields, weights[0])], dim=1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        fields, *weights = ctx.saved_tensors
        needed = ctx.needs_input_grad
        totals = [
            torch.zeros_like(each) if need else None for each, need in zip((fields, *weights), needed, strict=True)
        ]
        of_slabs = _slabs(fields, weights[0]) if totals[0] is None else _slabs(totals[0], weights[0])
        first = 0
        for slab, of_slab in zip(_slabs(fields, weights[0]), of_slabs, strict=True):
            with torch.enable_grad():
                inputs = [
                    each.detach().requires_grad_(need) for each, need in zip((slab, *weights), needed, strict=True)
                ]
                changes = _changes(*inputs)
            asked = [each for each in inputs if each.requires_grad]
            found = iter(torch.autograd.grad(changes, asked, gradient[:, first : first + changes.shape[1]]))
            for total, need in zip((of_slab, *totals[1:]), needed, strict=True):
                if need and total is not None:
                    total += next(found)
            first += changes.shape[1]
        return tuple(totals)


def _slabs(fields: Tensor, kernel: Tensor) -> list[Tensor]:
    """Cut fields ``(b, c, z, y, x)`` with a halo across their slowest axis, so that few cells of each lie between the halos."""
    sizes = [size - side + 1 for size, side in zip(fields.shape[2:], kernel.shape[3:], strict=True)]
    axis = next((axis for axis, size in enumerate(sizes) if size > 1), 0)
    side, length = kernel.shape[3 + axis], sizes[axis]
    layers = max(1, KEPT_AT_ONCE * length // (4 * math.prod(sizes)))
    return [
        fields.narrow(2 + axis, first, min(layers, length - first) + side - 1) for first in range(0, length, layers)
    ]


class _Products(torch.autograd.Function):
    """Products of what is seen in a cell, mixed, added to what is linear in it.

    As it is drawn above, from ``(b, m, 2 c + f)`` to ``(b, m, f)``. Its backward pass computes products and mix again: to keep
    and to read them takes longer, and takes as much memory as all else in the operator.
    """

    @staticmethod
    def forward(ctx: Any, seen: Tensor, weight: Tensor, bias: Tensor, out: Tensor) -> Tensor:  # noqa: ANN401
        ctx.save_for_backward(seen, weight, bias, out)
        changes = seen.new_empty(*seen.shape[:2], out.shape[2])
        for of_some, into in zip(*_by_cells(seen, changes), strict=True):
            p, q, linear = _parted(of_some, len(weight))
            products = F.hardtanh_(p * q, -MAX_PRODUCT, MAX_PRODUCT)
            into.copy_(torch.baddbmm(linear, F.gelu(F.linear(products, weight, bias)), out))
        return changes

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:  # noqa: ANN401
        seen, *weights = ctx.saved_tensors
        of_seen, of_weights = torch.empty_like(seen), [torch.zeros_like(each) for each in weights]
        for of_some in zip(*_by_cells(seen, of_seen, gradient), strict=True):
            for total, added in zip(of_weights, _gradients(*of_some, *weights), strict=True):
                total += added
        return of_seen, *of_weights


def _by_cells(*values: Tensor) -> list[tuple[Tensor, ...]]:
    """Split values ``(b, m, ...)`` into those of consecutive cells, a few at a time."""
    at_once = AT_ONCE if values[0].device.type == "cpu" else AT_ONCE_ON_GPU
    return [of_all.split(max(at_once // len(of_all), 1), dim=1) for of_all in values]


def _gradients(
    seen: Tensor, of_seen: Tensor, gradient: Tensor, weight: Tensor, bias: Tensor, out: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Write the gradient of what is seen in some cells ``(b, m, 2 c + f)``, and return those of the three weights."""
    p, q, _ = _parted(seen, len(weight))
    unbounded = p * q
    products = F.hardtanh(unbounded, -MAX_PRODUCT, MAX_PRODUCT)
    mixed = F.linear(products, weight, bias)
    of_mixed = aten.gelu_backward(gradient @ out.mT, mixed)
    of_products = aten.hardtanh_backward(of_mixed @ weight, unbounded, -MAX_PRODUCT, MAX_PRODUCT)
    of_p, of_q, of_linear = _parted(of_seen, len(weight))
    torch.mul(of_products, q, out=of_p)
    torch.mul(of_products, p, out=of_q)
    of_linear.copy_(gradient)
    of_mixed = of_mixed.flatten(0, 1)
    return of_mixed.T @ products.flatten(0, 1), of_mixed.sum(dim=0), F.gelu(mixed).mT @ gradient


def _parted(seen: Tensor, channels: int) -> tuple[Tensor, ...]:
    """Return ``p``, ``q`` and what is linear of what is seen ``(b, m, 2 c + f)``."""
    return seen.tensor_split((channels, 2 * channels), dim=-1)


def _convolve(fields: Tensor, kernel: Tensor, offset: Tensor) -> Tensor:
    """Convolve the fields of samples ``(b, z, y, x, c)``, each with its kernel ``(b, o, c, wz, wy, wx)``: ``(b, m, o)``."""
    if len(fields) > 1:
        # Many small grids: one matrix product of all windows takes less time than a call for each.
        for axis, side in enumerate(kernel.shape[3:], start=1):
            fields = fields.unfold(axis, side, 1)  # (b, z, y, x, c, wz, wy, wx)
        windows = fields.flatten(4).flatten(1, 3)
        return torch.baddbmm(offset[:, None], windows, kernel.flatten(2).mT)
    if kernel.shape[3] == 1:  # planes, each for itself
        kernel = kernel[0, :, :, 0].contiguous(memory_format=torch.channels_last)
        seen = F.conv2d(fields[0].permute(0, 3, 1, 2), kernel, offset[0]).permute(0, 2, 3, 1)
    else:
        kernel = kernel[0].contiguous(memory_format=torch.channels_last_3d)
        # On CPUs PyTorch convolves a single volume the slow way unless it is large, with all windows side by side in memory: 27
        # times what they are cut from. Of two at once it never does, so these are halves, which share a layer where they must.
        length = fields.shape[1] - kernel.shape[2] + 1
        half = -(-length // 2)
        halves = torch.cat([fields[:, : fields.shape[1] - length + half], fields[:, length - half :]])
        halves = F.conv3d(halves.permute(0, 4, 1, 2, 3), kernel, offset[0]).permute(0, 2, 3, 4, 1)
        seen = halves.flatten(0, 1) if 2 * half == length else torch.cat([halves[0], halves[1, 1:]])
    return seen.flatten(0, 2)[None]
