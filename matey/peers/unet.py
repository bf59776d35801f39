"""A plain U-Net (Ronneberger et al. 2015, arXiv:1505.04597) of about 1.4 million parameters, told the lead time."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from matey.peers.inputs import num_conditions, num_maps, pad_plane

WIDTHS = (16, 32, 64, 128, 160)
"""Number of channels from the finest to the coarsest grid; each grid has half the cells a side of the one before."""


class UNet(nn.Module):
    """Two convolutions per level on the way down and two on the way up, with the levels of equal size joined.

    An MLP of the conditions scales and shifts the first result of each pair of convolutions, channel by channel. Walls are
    padded with zeros, periodic axes with their other end. The last layer is zero at first, which predicts persistence.

    Args:
        num_frames: number of frames of history.
        num_fields: number of fields of its one system.
        widths: number of channels of each level.
    """

    def __init__(self, num_frames: int, num_fields: int, widths: Sequence[int] = WIDTHS) -> None:
        super().__init__()
        self.factor = 2 ** (len(widths) - 1)
        hidden = 64
        self.expand = nn.Sequential(nn.Linear(num_conditions(num_fields), hidden), nn.GELU())
        inputs = (num_maps(num_frames, num_fields), *widths)
        self.down = nn.ModuleList([Pair(a, b, hidden) for a, b in zip(inputs, widths, strict=False)])
        self.up = nn.ModuleList(
            [Pair(fine + coarse, fine, hidden) for fine, coarse in zip(widths, widths[1:], strict=False)]
        )
        self.out = nn.Conv2d(widths[0] + inputs[0], num_fields, 3)
        nn.init.zeros_(self.out.weight)
        assert self.out.bias is not None
        nn.init.zeros_(self.out.bias)

    def forward(self, maps: Tensor, conditions: Tensor, periodic: Sequence[bool]) -> Tensor:
        """Predict the change ``(b, f, y, x)`` from maps ``(b, t f, y, x)`` and conditions ``(b, k)``."""
        size = maps.shape[-2:]
        # A grid that the levels do not divide is padded, and the padding is cut away at the end.
        first = maps = pad_plane(maps, (0, 0), [-cells % self.factor for cells in size], periodic)
        conditions = self.expand(conditions)
        levels: list[Tensor] = []
        for pair in self.down:
            maps = pair(F.avg_pool2d(levels[-1], 2) if levels else maps, conditions, periodic)
            levels.append(maps)
        for pair, fine in zip(reversed(self.up), reversed(levels[:-1]), strict=True):
            maps = pair(torch.cat([fine, F.interpolate(maps, scale_factor=2)], dim=1), conditions, periodic)
        joined = pad_plane(torch.cat([first, maps], dim=1), (1, 1), (1, 1), periodic)
        return self.out(joined)[..., : size[0], : size[1]]


class Pair(nn.Module):
    """Two convolutions of 3 x 3 cells; the first is normalised over groups of channels."""

    def __init__(self, num_inputs: int, width: int, hidden: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(num_inputs, width, 3)
        self.second = nn.Conv2d(width, width, 3)
        self.norm = nn.GroupNorm(4, width)
        self.modulate = nn.Linear(hidden, 2 * width)

    def forward(self, maps: Tensor, conditions: Tensor, periodic: Sequence[bool]) -> Tensor:
        """Map ``(b, c, y, x)`` to as many cells with other channels."""
        scale, shift = self.modulate(conditions)[..., None, None].chunk(2, dim=1)
        maps = self.norm(self.first(pad_plane(maps, (1, 1), (1, 1), periodic)))
        maps = F.gelu(maps * (1 + scale) + shift)
        return F.gelu(self.second(pad_plane(maps, (1, 1), (1, 1), periodic)))
