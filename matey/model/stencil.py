"""A learnt numerical scheme on a grid: from a small window on the last frame and on the change since the one before.

The same weights act in every cell; each sample mixes them according to its lead time and scales. In a cascade, the window of a
scheme also sees the prediction of the scheme before it. Per cell:

    window --> p, q --> p q --> linear --> GELU --> change of each field    products of neighbours, as in fluxes and reactions,
      |         |                                      ^
      |         '--------------> linear ---------------|                    what is linear across fields
      '--> stencil of the field on itself -------------'                    and within one, as diffusion and extrapolation
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from matey.model.convolution import convolve, inner
from matey.model.first_derivatives import first_only_of_local
from matey.model.given import Rows, chosen
from matey.model.one_tensor import packed
from matey.model.slabs import in_slabs, kept_by_scheme

aten = torch.ops.aten

NUM_STENCILS = 4
"""Linear stencils of a field on itself that each sample mixes."""

NUM_INPUTS = 2
"""Number of inputs of a field in a cell: the last frame, and the change since the one before."""

CELLS_AT_ONCE = 4096
"""Cells of small grids that are computed together."""

MAX_PRODUCT = 10.0
"""Largest absolute value of a product. Without this bound, a spike in a rollout would be squared in every step."""


AT_ONCE, AT_ONCE_ON_GPU = 2**13, 2**20
"""Cells whose products are computed at once: so few that intermediate results stay in the cache of a CPU."""


class Scheme(nn.Module):
    """Predict the change of every cell of a grid from the window around it.

    Args:
        halo: number of cells by which the window reaches along ``z, y, x``.
        num_fields: rows of the vocabulary.
        width: width of a sample's conditions.
        channels: products per cell.
        follows: whether this scheme sees the prediction of another scheme.
    """

    def __init__(
        self, halo: Sequence[int], num_fields: int, width: int, channels: int, *, follows: bool = False
    ) -> None:
        super().__init__()
        self.halo, self.sides, self.channels = list(halo), [2 * reach + 1 for reach in halo], channels
        window = math.prod(self.sides)
        self.field_weight = nn.Parameter(torch.empty(num_fields, window, NUM_INPUTS, 2 * channels))
        # All maps to changes are zero, so that an untrained model predicts no change.
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
        """Predict the changes of every batch in one call; the result is one tensor, see `matey.model.one_tensor`.

        Args:
            wide: inputs ``(b, 2, f, z, y, x)`` of each batch with a halo, see `matey.model.local.local_inputs`.
            predicted: changes ``(b, z, y, x, f)`` of each batch in the same cells, predicted by the scheme before; empty
                without such a scheme.
            conditions: ``(b, e)``, the conditions of the samples, batch after batch.
            rows: the rows of each batch's fields in the vocabulary.

        Returns:
            The changes of the batches ``(b, z, y, x, f)``, see `shapes`, added to those of the scheme before.
        """
        told = self.modulate(F.gelu(self.expand(conditions))).split([len(inputs) for inputs in wide])
        seen = [inputs.flatten(1, 2) for inputs in wide]
        if not predicted:
            return packed([self._of_batch(*batch) for batch in zip(seen, told, rows, strict=True)])
        before = [changes.movedim(-1, 1) for changes in predicted]
        seen = [torch.cat(both, dim=1) for both in zip(seen, before, strict=True)]
        return packed(
            [
                inner(changes, self.halo).movedim(1, -1) + self._of_batch(*batch)
                for changes, *batch in zip(before, seen, told, rows, strict=True)
            ]
        )

    def shapes(self, wide: Sequence[Tensor], rows: Sequence[Rows]) -> list[tuple[int, ...]]:
        """Return the shape of each batch's changes, ``(b, z, y, x, f)``."""
        return [
            (len(w), *(size - side + 1 for size, side in zip(w.shape[3:], self.sides, strict=True)), len(row.predicted))
            for w, row in zip(wide, rows, strict=True)
        ]

    def _of_batch(self, wide: Tensor, told: Tensor, row: Rows) -> Tensor:
        kernel, offset, out = self._folded(told.to(wide.dtype), row)
        weight, bias = self.mix.weight.to(wide.dtype), self.mix.bias.to(wide.dtype)
        grid = [size - side + 1 for size, side in zip(wide.shape[2:], self.sides, strict=True)]
        # A few samples at a time, so that window sums still lie in the cache when they are multiplied.
        number = max(1, CELLS_AT_ONCE // math.prod(grid))
        kept = kept_by_scheme(wide.shape[1], self.channels, len(row.predicted))
        changes = [
            in_slabs(_changes, [fields], [self.halo], [*of_samples, weight, bias], kept)
            for fields, *of_samples in zip(
                *(values.split(number) for values in (wide, kernel, offset, out)), strict=True
            )
        ]
        return torch.cat(changes).movedim(1, -1)

    def _folded(self, told: Tensor, row: Rows) -> tuple[Tensor, Tensor, Tensor]:
        """Return the weights of the fields, combined for each sample.

        All linear maps are folded into one stencil from each input to each result, so that none is computed per cell.

        Returns:
            Kernels ``(b, 2 c + f, i f, wz, wy, wx)`` from all inputs to ``p``, ``q`` and the linear part of the fields to
            predict, with ``f`` more inputs where it follows another scheme; offsets ``(b, 2 c + f)``; the map ``(b, c, f)``
            from the mixed products to the changes.
        """
        num_fields, dtype, two = len(row.predicted), told.dtype, 2 * self.channels
        sizes = [two, two, two, self.channels, NUM_STENCILS]
        of_products, _, of_linear, of_out, of_stencils = (1 + told).split(sizes, dim=1)
        stencils, linear, out = (
            chosen(weights, row.predicted).to(dtype)
            for weights in (self.field_stencils, self.field_linear, self.field_out)
        )
        own = (of_stencils @ rearrange(stencils, "g w i s -> s (i g w)")).view(len(told), NUM_INPUTS, num_fields, -1)
        if num_given := len(row.inputs) - num_fields:  # given fields have no stencil on themselves
            own = F.pad(own, (0, 0, 0, num_given))
        own = own[:, None] * _same(num_fields, len(row.inputs), dtype, told.device)  # (b, g, i, f, w)
        across = of_linear[:, None] * linear  # (b, g, 2 c)
        weight = chosen(self.field_weight, row.inputs).to(dtype) / math.sqrt(num_fields)
        weight = rearrange(weight, "f w i c -> c (i f w)")
        kernel = torch.cat([of_products[:, :, None] * weight, across @ weight + own.flatten(2)], dim=1)
        if self.field_predicted is not None:
            weight = chosen(self.field_predicted, row.predicted).to(dtype) / math.sqrt(num_fields)
            weight = rearrange(weight, "f w c -> c (f w)")
            of_predicted = torch.cat([of_products[:, :, None] * weight, across @ weight], dim=1)
            kernel = torch.cat([kernel, of_predicted], dim=2)
        offset = F.pad(told[:, two : 2 * two], (0, num_fields))
        return kernel.unflatten(2, (-1, *self.sides)), offset, of_out[:, :, None] * out.T


@cache
def _same(num_fields: int, num_inputs: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return one where input ``f`` is predicted field ``g``, else zero, ``(g, 1, f, 1)``."""
    with torch.inference_mode(False):  # it may be used in training later
        return torch.eye(num_fields, num_inputs, dtype=dtype, device=device)[:, None, :, None]


def _changes(fields: Tensor, kernel: Tensor, offset: Tensor, out: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return the changes ``(b, f, z, y, x)`` of samples ``(b, c, z, y, x)``, which have a halo."""
    # Channels last: both passes of a convolution of few channels are then up to twice as fast on CPUs.
    fields = rearrange(fields, "b c z y x -> b z y x c").contiguous()
    changes: Tensor = _Products.apply(_seen(fields, kernel, offset), weight, bias, out)
    z, y, x = (size - side + 1 for size, side in zip(fields.shape[1:4], kernel.shape[3:], strict=True))
    return rearrange(changes, "b (z y x) f -> b f z y x", z=z, y=y, x=x)


class _Products(torch.autograd.Function):
    """Multiply the window sums ``p`` and ``q`` of each cell, mix the products, and add the linear part.

    The drawing above shows this step, from ``(b, m, 2 c + f)`` to ``(b, m, f)``. The backward pass recomputes products and mix:
    keeping and reading them would take longer, and as much memory as all else in the operator.
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
    @first_only_of_local
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:  # noqa: ANN401
        seen, *weights = ctx.saved_tensors
        of_seen = torch.empty_like(seen)
        first, *others = zip(*_by_cells(seen, of_seen, gradient), strict=True)
        of_weights = _gradients(*first, *weights)
        for of_some in others:
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
    """Write the gradient of some cells' window sums ``(b, m, 2 c + f)``, and return those of the three weights."""
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
    """Return ``p``, ``q`` and the linear part of window sums ``(b, m, 2 c + f)``."""
    return seen.tensor_split((channels, 2 * channels), dim=-1)


def _seen(fields: Tensor, kernel: Tensor, offset: Tensor) -> Tensor:
    """Return window sums ``(b, m, o)`` of samples ``(b, z, y, x, c)``, each with its kernel ``(b, o, c, wz, wy, wx)``."""
    if len(fields) == 1:
        seen = convolve(rearrange(fields, "b z y x c -> b c z y x"), kernel[0], offset[0])
        return rearrange(seen, "b o z y x -> b (z y x) o")
    # Many small grids: one matrix product of all windows takes less time than a call for each.
    for axis, side in enumerate(kernel.shape[3:], start=1):
        fields = fields.unfold(axis, side, 1)  # (b, z, y, x, c, wz, wy, wx)
    windows = fields.flatten(4).flatten(1, 3)
    return torch.baddbmm(offset[:, None], windows, kernel.flatten(2).mT)
