"""The local operator: beside the tokens, and at the resolution of the cells, a numerical scheme that is learnt.

A token of width 96 cannot carry a rough 8 x 8 patch and its time derivative, and what it cannot carry it cannot predict. What
happens within a few cells is what a solver's scheme computes from a stencil, so it is learnt as one: from a small window on
the last frame and on the change since the frame before. The same weights act in every cell; each sample mixes them as its lead
time and its scales ask for. Per cell of this rank, with a halo:

    window --> p, q --> p q --> linear --> GELU --> change of each field    products of neighbours, as in fluxes and reactions
      |                                                ^
      '--> stencil of the field -----------------------'                    what is linear, as diffusion and extrapolation
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
"""Linear stencils of a field that each sample mixes."""

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
        # Zero, as what comes of the products: an untrained model predicts no change.
        self.field_stencils = nn.Parameter(torch.zeros(num_fields, window, NUM_INPUTS, NUM_STENCILS))
        self.field_out = nn.Parameter(torch.zeros(num_fields, channels))
        self.mix = nn.Linear(channels, channels)
        self.expand = nn.Linear(width, width // 2)
        self.modulate = nn.Linear(width // 2, 5 * channels + NUM_STENCILS)

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
        samples, *box = tiles.box
        wide = extend(
            inputs[samples],
            [side.stop + reach for side, reach in zip(box, self.halo, strict=True)],
            tiles.frames.periodic,
            before=[reach - side.start for side, reach in zip(box, self.halo, strict=True)],
        )
        grid = [side.stop - side.start for side in box]
        windows = _windows(rearrange(wide, "b i f z y x -> b z y x (f i)"), self.halo)

        num_fields, channels, dtype = len(row), self.channels, windows.dtype
        of_products, offset, of_out, of_stencils = (
            modulated[samples].to(dtype).split([2 * channels, 2 * channels, channels, NUM_STENCILS], 1)
        )
        weight = rearrange(self.field_weight[row], "f w i c -> (w f i) c").to(dtype) / math.sqrt(num_fields)
        stencils = torch.einsum("f w i s, b s -> b w f i", self.field_stencils[row].to(dtype), 1 + of_stencils)
        # Of a field's stencil only the cells of that field count.
        own = torch.eye(num_fields, dtype=dtype, device=row.device)
        stencils = torch.einsum("b w f i, f g -> b w f i g", stencils, own).flatten(1, 3)
        weight = torch.cat([weight * (1 + of_products)[:, None], stencils], dim=2)  # (b, w f i, 2 c + f)
        seen = torch.baddbmm(F.pad(offset, (0, num_fields))[:, None], windows, weight)
        p, q, linear = seen.split([channels, channels, num_fields], dim=2)
        mixed = F.gelu(F.linear(p * q, self.mix.weight.to(dtype), self.mix.bias.to(dtype)))
        out = (1 + of_out)[:, :, None] * self.field_out[row].T.to(dtype)  # (b, c, f)
        change = torch.baddbmm(linear, mixed, out)
        return change.transpose(1, 2).unflatten(2, grid)  # (b, f, z, y, x), which may have no cells


def _windows(fields: Tensor, halo: Sequence[int]) -> Tensor:
    """Cut the window around each cell out of fields ``(b, z, y, x, c)`` with a halo: ``(b, z y x, w c)``.

    With the channels last, the cells of a window along ``x`` lie one after the other: copied as one row, they take a third of
    the time.
    """
    fields = fields.contiguous()
    num_samples, *grid, channels = fields.shape
    z, y, x = (size - 2 * reach for size, reach in zip(grid, halo, strict=True))
    wz, wy, wx = (2 * reach + 1 for reach in halo)
    of_sample, *along, _ = fields.stride()
    rows = fields.as_strided((num_samples, z, y, x, wz, wy, wx * channels), (of_sample, *along, *along[:2], 1))
    return rows.reshape(num_samples, z * y * x, wz * wy * wx * channels)


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
