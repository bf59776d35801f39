"""The local operator: beside the tokens, and at the resolution of the cells, a numerical scheme that is learnt.

A token of width 96 cannot carry a rough 8 x 8 patch and its time derivative, and what it cannot carry it cannot predict. What
happens within a few cells is what a solver's scheme computes from a stencil, so it is learnt as one: from a small window on
the last frame and on the change since the frame before. The same weights act in every cell; each sample mixes them as its lead
time and its scales ask for. Per cell of this rank, with a halo:

    window --> p, q --> p q --> linear --> GELU --> change of each field    products of neighbours, as in fluxes and reactions
      |         |                                      ^
      |         '--------------> linear --------------->                    what is linear across fields
      '--> stencil of the field on itself -------------'                    and within one, as diffusion and extrapolation
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from matey.tokens.coverage import Tiles
from matey.tokens.patches import Patch, extend

NUM_STENCILS = 4
"""Linear stencils of a field on itself that each sample mixes."""

NUM_INPUTS = 2
"""Values of a field in a cell: the last frame, and the change since the one before."""


class LocalOperator(nn.Module):
    """Predict the change of every cell from those around it. The list of groups is one call, as ZeRO asks for.

    Args:
        patches: of all levels; the windows extend along the axes that patches extend along.
        num_fields: rows of the vocabulary.
        width: of a sample's conditions.
        channels: products per cell.
    """

    def __init__(self, patches: Sequence[Patch], num_fields: int, width: int, channels: int) -> None:
        super().__init__()
        along = [any(patch[axis] > 1 for patch in patches) for axis in (1, 2, 3)]
        # In space a window of five cells would be 125 of them.
        self.halo = tuple((1 if along[0] else 2) if goes else 0 for goes in along)
        self.channels = channels
        window = math.prod(2 * reach + 1 for reach in self.halo)
        self.field_weight = nn.Parameter(torch.empty(num_fields, window, NUM_INPUTS, 2 * channels))
        # Zero, as what p and q and their products give: an untrained model predicts no change.
        self.field_stencils = nn.Parameter(torch.zeros(num_fields, window, NUM_INPUTS, NUM_STENCILS))
        self.field_linear = nn.Parameter(torch.zeros(num_fields, 2 * channels))
        self.field_out = nn.Parameter(torch.zeros(num_fields, channels))
        self.mix = nn.Linear(channels, channels)
        self.expand = nn.Linear(width, width // 2)
        self.modulate = nn.Linear(width // 2, 7 * channels + NUM_STENCILS)

    def forward(
        self,
        frames: Sequence[Tensor],
        tiles: Sequence[Tiles],
        conditions: Tensor,
        rows: Sequence[Tensor],
    ) -> list[Tensor]:
        """Predict the changes in some tiles of every group.

        Args:
            frames: per group ``(b, 2, f, z, y, x)``, see `local_inputs`.
            tiles: per group those to predict; there may be none.
            conditions: ``(b, e)`` of the samples, group after group.
            rows: per group ``(f,)`` the row of each field in the vocabulary.

        Returns:
            Per group ``(k, f, z, y, x)``, the cells of the tiles; zero beyond the grid.
        """
        # One call for all groups: ranks may have different numbers of them.
        modulated = self.modulate(F.gelu(self.expand(conditions))).split([len(inputs) for inputs in frames])
        groups = zip(frames, tiles, modulated, rows, strict=True)
        return [part.place(self._predict(inputs, part, *of_group)) for inputs, part, *of_group in groups]

    def _predict(self, inputs: Tensor, tiles: Tiles, modulated: Tensor, row: Tensor) -> Tensor:
        """Predict the changes ``(b, f, z, y, x)`` in the box around some tiles."""
        lengths = (len(inputs), *inputs.shape[3:])
        cells = [side.stop - side.start for side in tiles.box]
        # A rank without cells predicts one and drops it: it has a gradient of zero for every weight, which ZeRO waits for.
        samples, *box = (_not_empty(side, length) for side, length in zip(tiles.box, lengths, strict=True))
        wide = extend(
            inputs[samples],
            [side.stop + reach for side, reach in zip(box, self.halo, strict=True)],
            tiles.frames.periodic,
            before=[reach - side.start for side, reach in zip(box, self.halo, strict=True)],
        )
        # Channels last: both passes of a convolution of few channels are then up to twice as fast on CPUs.
        wide = rearrange(wide, "b i f z y x -> b z y x (i f)").contiguous()
        kernel, offset, out = self._folded(modulated[samples].to(wide.dtype), row)
        # One sample after the other, so that what belongs together is still in the cache.
        changes = [self._predict_sample(*sample) for sample in zip(wide, kernel, offset, out, strict=True)]
        num_samples, z, y, x = cells
        return rearrange(torch.stack(changes), "b z y x f -> b f z y x")[:num_samples, :, :z, :y, :x]

    def _folded(self, modulated: Tensor, row: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return what the fields' weights come to for each sample.

        All that is linear is folded into one stencil from each field to each: none of it is computed per cell.

        Returns:
            Kernels ``(b, 2 c + f, i f, wz, wy, wx)`` to ``p``, ``q`` and what is linear, offsets ``(b, 2 c + f)``, and the map
            ``(b, c, f)`` of what comes of the products.
        """
        num_fields, channels, dtype = len(row), self.channels, modulated.dtype
        of_products, offset, of_linear, of_out, of_stencils = modulated.split(
            [2 * channels, 2 * channels, 2 * channels, channels, NUM_STENCILS], dim=1
        )
        weight, stencils, linear, out = (
            weights[row].to(dtype)
            for weights in (self.field_weight, self.field_stencils, self.field_linear, self.field_out)
        )
        weight = weight / math.sqrt(num_fields)
        same = torch.eye(num_fields, dtype=dtype, device=row.device)
        kernel = torch.cat(
            [
                torch.einsum("f w i c, b c -> b c i f w", weight, 1 + of_products),
                torch.einsum("f w i c, b c, g c -> b g i f w", weight, 1 + of_linear, linear)
                + torch.einsum("f w i s, b s, f g -> b g i f w", stencils, 1 + of_stencils, same),
            ],
            dim=1,
        )
        kernel = kernel.flatten(2, 3).unflatten(3, [2 * reach + 1 for reach in self.halo])
        return kernel, F.pad(offset, (0, num_fields)), (1 + of_out)[:, :, None] * out.T

    def _predict_sample(self, fields: Tensor, kernel: Tensor, offset: Tensor, out: Tensor) -> Tensor:
        """Predict the changes ``(z, y, x, f)`` of one sample from its fields with a halo, ``(z, y, x, i f)``."""
        seen = _convolve(fields, kernel, offset)
        p, q, linear = seen.split([self.channels, self.channels, out.shape[1]], dim=-1)
        mixed = F.gelu(F.linear(p * q, self.mix.weight.to(seen.dtype), self.mix.bias.to(seen.dtype)))
        return linear + mixed @ out


def _convolve(fields: Tensor, kernel: Tensor, offset: Tensor) -> Tensor:
    """Convolve fields ``(z, y, x, c)`` with a kernel ``(o, c, wz, wy, wx)``: ``(z, y, x, o)``, smaller by the window."""
    if kernel.shape[2] == 1:  # planes, each for itself
        kernel = kernel[:, :, 0].contiguous(memory_format=torch.channels_last)
        return F.conv2d(fields.permute(0, 3, 1, 2), kernel, offset).permute(0, 2, 3, 1)
    kernel = kernel.contiguous(memory_format=torch.channels_last_3d)
    return F.conv3d(fields.permute(3, 0, 1, 2)[None], kernel, offset)[0].permute(1, 2, 3, 0)


def _not_empty(side: slice, length: int) -> slice:
    start = min(side.start, length - 1)
    return slice(start, max(side.stop, start + 1))


def local_inputs(normalised: Tensor, change: Tensor) -> Tensor:
    """Return what the local operator sees: the last frame, and the change since the one before in units of its size.

    Args:
        normalised: ``(b, t, f, z, y, x)``; with one frame there is no change, which is then zero.
        change: ``(b, f)``, the size of the change in units of the normalised fields.

    Returns:
        ``(b, 2, f, z, y, x)``.
    """
    last = normalised[:, -1]
    before = normalised[:, -2] if normalised.shape[1] > 1 else last
    return torch.stack([last, (last - before) / change[..., None, None, None]], dim=1)
