"""A stage of a local network: sums over a window on one scale, and layers of products of neighbours after them.

    window --> features --> + p q, mixed --> ... --> features, for the stage of the next finer scale
      |          ^  p, q: windows of 3 cells a side    '--> on the finest, window --> change of each field
      |          |                                                                      ^
      |    features of the stage of the next coarser scale, interpolated                |
      '--> on the finest, what is linear in the window ---------------------------------'

Fluxes and reactions consist of products of convolutions; a layer adds its products to its input, so that linear terms pass all
layers. The factors are computed from features with a mean square below one in each cell. A sample's lead time and scales
multiply and shift the features and one factor of each product.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from matey.model.convolution import convolve, inner
from matey.model.given import Rows, chosen
from matey.model.ladder import Ladder
from matey.model.layer import add_products, bounded
from matey.model.one_tensor import joined, packed
from matey.model.slabs import grid_of, in_slabs, is_large, kept_by_stage
from matey.model.stencil import NUM_INPUTS


class Stage(nn.Module):
    """Compute features of every cell of a grid or, in the last stage, the change of its fields.

    Args:
        ladder: the scales, and the layers on each.
        number: number of this stage from fine to coarse; the last one to work is 0.
        num_fields: rows of the vocabulary.
        width: width of a sample's conditions.
        channels: number of features of a cell.
        told: number of features of a cell that come from the coarser stage; 0: this stage is the coarsest.
    """

    def __init__(self, ladder: Ladder, number: int, num_fields: int, width: int, channels: int, told: int) -> None:
        super().__init__()
        self.halo, self.step = ladder.halo, ladder.step
        self.beyond, self.reach = ladder.beyond(number), ladder.reach(number)
        self.channels, layers, is_last = channels, ladder.layers[number], number == 0
        window, near = (math.prod(_sides(reaches)) for reaches in (self.halo, self.step))
        self.field_weight = nn.Parameter(torch.empty(num_fields, window, NUM_INPUTS, channels))
        # Zero, so that an untrained model predicts no change. The mixes are zero too: layers change nothing at first.
        self.field_out = nn.Parameter(torch.zeros(num_fields, channels, near)) if is_last else None
        self.field_stencil = nn.Parameter(torch.zeros(num_fields, window, NUM_INPUTS)) if is_last else None
        self.field_linear = nn.Parameter(torch.zeros(num_fields, channels)) if is_last else None
        self.bring = nn.Parameter(torch.empty(channels, told)) if told else None
        self.factors = nn.Parameter(torch.empty(layers, 2 * channels, channels, near))
        self.mixes = nn.Parameter(torch.zeros(layers, channels, channels))
        self.expand = nn.Linear(width, width // 2)
        self.modulate = nn.Linear(width // 2, 2 * channels * (1 + layers) + is_last)

    def forward(
        self, wide: Sequence[Tensor], before: Sequence[Tensor], conditions: Tensor, rows: Sequence[Rows]
    ) -> Tensor:
        """Compute the features or changes of every batch in one call; the result is one tensor, see `matey.model.one_tensor`.

        Args:
            wide: inputs ``(b, 2, f, z, y, x)`` of each batch around the grid, as far as all layers reach, see
                `matey.model.local.local_inputs`.
            before: features ``(b, z, y, x, c)`` of the coarser stage around the grid, as far as the layers reach without the
                window; empty for the coarsest.
            conditions: ``(b, e)``, the conditions of the samples, batch after batch.
            rows: the rows of each batch's fields in the vocabulary.

        Returns:
            Features ``(b, z, y, x, c)`` of each batch or, in the last stage, changes ``(b, z, y, x, f)``, see `shapes`.
        """
        told = self.modulate(F.gelu(self.expand(conditions))).split([len(inputs) for inputs in wide])
        brought: Sequence[Tensor | None] = before or [None] * len(wide)
        found = [self._of_batch(*batch) for batch in zip(wide, brought, told, rows, strict=True)]
        return packed([values.movedim(1, -1) for values in found])

    def shapes(self, wide: Sequence[Tensor], rows: Sequence[Rows]) -> list[tuple[int, ...]]:
        """Return the shape of each batch's result, ``(b, z, y, x, c)``."""
        return [
            (
                len(inputs),
                *(size - 2 * reach for size, reach in zip(inputs.shape[3:], self.reach, strict=True)),
                self.channels if self.field_out is None else len(row.predicted),
            )
            for inputs, row in zip(wide, rows, strict=True)
        ]

    def _of_batch(self, wide: Tensor, before: Tensor | None, told: Tensor, row: Rows) -> Tensor:
        weights = [self._window(row, wide.dtype), self.factors.unflatten(3, _sides(self.step)), self.mixes]
        fields, halos = [wide.flatten(1, 2)], [self.reach]
        if self.bring is not None:
            assert before is not None, "a stage that follows another is told its features"
            fields.append(before.movedim(-1, 1))
            halos.append(self.beyond)
            weights.append(self.bring)
        if self.field_out is not None:
            weights.append(chosen(self.field_out, row.predicted).unflatten(2, _sides(self.step)))
        weights = [weight.to(wide.dtype) for weight in weights]
        kept = kept_by_stage(sum(each.shape[1] for each in fields), self.channels, len(self.mixes))
        at_once = 1 if is_large(grid_of(fields[0], self.reach), kept) else len(wide)
        parts = zip(*(each.split(at_once) for each in (told.to(wide.dtype), *fields)), strict=True)
        return joined(
            [in_slabs(self._layers, part, halos, [of_samples, *weights], kept) for of_samples, *part in parts]
        )

    def _window(self, row: Rows, dtype: torch.dtype) -> Tensor:
        """Return the kernel ``(c, i f, z, y, x)`` from the inputs to the features and, in the last stage, to changes."""
        weight = chosen(self.field_weight, row.inputs).to(dtype) / math.sqrt(len(row.predicted))  # (f, w, i, c)
        kernel = rearrange(weight, "f w i c -> c i f w")
        if self.field_stencil is not None and self.field_linear is not None:
            of_fields = (self.field_linear, self.field_stencil)
            linear, stencil = (chosen(weights, row.predicted).to(dtype) for weights in of_fields)
            # Rows are inputs, columns predicted fields: a given field has no stencil on itself.
            same = torch.eye(len(row.inputs), len(row.predicted), dtype=dtype, device=weight.device)
            across = torch.einsum("g c, c i f w -> g i f w", linear, kernel)
            kernel = torch.cat([kernel, across + torch.einsum("g w i, f g -> g i f w", stencil, same)])
        return kernel.flatten(1, 2).unflatten(2, _sides(self.halo))

    def _layers(self, wide: Tensor, *others: Tensor) -> Tensor:
        """Return the features or changes ``(b, c, z, y, x)`` of some samples, see `_of_batch`.

        Args:
            wide: inputs ``(b, c, z, y, x)`` around the grid.
            others: features of the coarser stage, if there is one; conditions of the samples; then the weights: window,
                factors, mixes and, if there are such, the map of the coarser features and the window of the changes.
        """
        before, others = (others[0], others[1:]) if self.bring is not None else (None, others)
        told, window, factors, mixes, *last = others
        of_layers = 2 * self.channels * (1 + len(mixes))
        told, of_linear = told.split([of_layers, told.shape[1] - of_layers], dim=1)
        scale, offset, *scales = told.unflatten(1, (2 * (1 + len(mixes)), self.channels)).unbind(1)
        values = found = convolve(wide, window)
        if self.field_out is not None:
            values, linear = found.split([self.channels, found.shape[1] - self.channels], dim=1)
        if before is not None:
            values = values + _mixed(before, last[0])
        values = torch.addcmul(offset[..., None, None, None], values, 1 + scale[..., None, None, None])
        for factor, mix, scale, offset in zip(factors, mixes, scales[::2], scales[1::2], strict=True):
            seen, values = bounded(values, self.step)
            values = add_products(values, convolve(seen, factor), 1 + scale, 1 + offset, mix)
        if self.field_out is None:
            return values
        return convolve(values, last[-1]) + inner(linear, self.beyond) * (1 + of_linear[..., None, None, None])


def _sides(halo: Sequence[int]) -> list[int]:
    """Return the sides ``z, y, x`` of the window of a halo."""
    return [2 * reach + 1 for reach in halo]


def _mixed(values: Tensor, weight: Tensor) -> Tensor:
    """Map channels ``(b, c, z, y, x)`` by a matrix ``(o, c)``, cell by cell."""
    return F.linear(values.movedim(1, -1), weight).movedim(-1, 1)
