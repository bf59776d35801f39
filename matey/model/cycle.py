"""Tokens as the coarse scales of the network on the cells: what they take from cells, mix with their neighbours, and give back.

    features on the cells --> each leaf takes those of its cells --> maps of neighbours --> blocks --> maps of neighbours
                                                                                                           |
    added to the features on the cells <-- interpolated <-- grains, a few for each leaf <------------------'

It is one cycle of a multigrid solver whose coarse grid is the adaptive mesh. A leaf gives back its features in grains of some
four cells a side, whatever its size, which are interpolated linearly from grain to grain, so that leaves join without seams:

      +---------------+---+---+      leaves of 16, 8 and 4 cells, and their grains of 4 cells: 16, 4 and 1
      | .   .   .   . | . | . |
      |               +---+---+
      | .   .   .   . | . | . |
      |               +---+---+
      | .   .   .   . | .   . |
      |               |       |
      | .   .   .   . | .   . |
      +---------------+-------+
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from matey.model.blocks import Near
from matey.model.modules import ModuleList, joined
from matey.model.sequence_group import SequenceGroup
from matey.tokens.patches import Patch, factor_stages, parts_along, patches_at

DENSE = 2**20  # largest number of weights of one matrix of interpolation
GRAINS_AT_ONCE = 128  # grains that a piece of a longer axis is as long as


def grain_of(patches: Sequence[Patch]) -> Patch:
    """Return the size of a grain, of one frame: the largest divisor up to 4 of the finest patch, along each axis."""
    z, y, x = factor_stages((1, *patches[-1][1:]))[0][1:]
    return 1, z, y, x


class Taking(nn.Module):
    """Map the features of a leaf's cells to what is added to its token, in stages as those of `PatchEmbedding`."""

    def __init__(self, patch: Patch, channels: int, width: int) -> None:
        super().__init__()
        self.patch = (1, *patch[1:])
        self.splits = factor_stages(self.patch)
        widths = [channels] + [width] * len(self.splits)
        self.stages = ModuleList(
            [
                nn.Linear(math.prod(split) * w_in, width, bias=number == 0)
                for number, (split, w_in) in enumerate(zip(self.splits, widths, strict=False))
            ]
        )

    def forward(self, features: Sequence[Tensor], rows: Sequence[Tensor]) -> Tensor:
        """Map features of the leaves in all batches to ``(m, e)``.

        Args:
            features: each batch's features ``(b, c, z, y, x)``, as far as the coarsest patches reach.
            rows: rows ``(m,)`` of each batch's leaves in ``patchify`` of the features.
        """
        cut = [patches_at(each[:, None], self.patch, row) for each, row in zip(features, rows, strict=True)]
        found, pattern = torch.cat(cut), "m c t (Z z) (Y y) (X x) -> m t Z Y X (c z y x)"
        for stage, (_, z, y, x) in zip(self.stages, self.splits, strict=True):
            found = stage(rearrange(found, pattern, z=z, y=y, x=x))
            pattern = "m t (Z z) (Y y) (X x) c -> m t Z Y X (z y x c)"
        return found.flatten(0, -2)


class NeighbourMap(nn.Linear):
    """A dense map of a token and its neighbours, added to the token."""

    def __init__(self, width: int, num_places: int) -> None:
        super().__init__(num_places * width, width)

    def forward(self, tokens: Tensor, sequence_group: SequenceGroup, near: Near) -> Tensor:  # type: ignore[override]
        """Map ``(n, e)`` to ``(n, e)``."""
        route, neighbours = near
        seen = sequence_group.exchange_tokens(F.gelu(tokens), route)
        return tokens + super().forward(neighbours.around(seen).flatten(1))


class Giving(nn.Linear):
    """Map tokens of one level to the features of the grains of their leaves; zero at first, so that tokens change nothing."""

    def __init__(self, patch: Patch, grain: Patch, channels: int, width: int) -> None:
        super().__init__(width, math.prod(parts_along(patch, grain)) * channels)
        self.channels = channels

    def forward(self, tokens: Tensor) -> Tensor:
        """Map ``(m, e)`` to the grains ``(m g, c)``, those of a leaf one after the other."""
        return super().forward(tokens).view(-1, self.channels)


def on_cells(grains: Tensor, numbers: Tensor, first: Sequence[int], grain: Patch, cells: Sequence[slice]) -> Tensor:
    """Return what grains give to some cells, ``(b, c, z, y, x)``, interpolated linearly.

    Args:
        grains: ``(g, c)``, all grains that leaves give.
        numbers: ``(l, b, Z, Y, X)``, the number of each grain around the cells; several are added up. ``g`` stands for none.
        first: the first of them along ``z, y, x``, counted from the domain's.
        grain: size of a grain.
        cells: the cells ``z, y, x``, counted from the domain's.
    """
    values = F.embedding(numbers.flatten(), torch.cat([grains, grains.new_zeros(1, grains.shape[1])]))
    values = values.view(*numbers.shape, grains.shape[1]).sum(dim=0)  # (b, Z, Y, X, c)
    box = [slice(begin, begin + size) for begin, size in zip(first, values.shape[1:-1], strict=True)]
    for axis, along in enumerate(zip(box, grain[1:], cells, strict=True), start=1):
        values = _interpolated(values, axis, *along)
    return values.movedim(-1, 1)


def _interpolated(values: Tensor, axis: int, box: slice, grain: int, to: slice) -> Tensor:
    """Interpolate along an axis to cells by a dense matrix, or by several along a long one, where most of it would be zero.

    This is many times as fast as gathering neighbours, and has the same gradient on every run.
    """
    if grain == 1:
        # Narrowing to the whole axis would cost the backward pass a copy.
        return values if to == box else values.narrow(axis, to.start - box.start, to.stop - to.start)
    sizes, start = (values.shape[axis], to.stop - to.start), to.start - box.start * grain
    # Pieces of a whole number of grains have the same weights.
    rows = sizes[1] if math.prod(sizes) <= DENSE else GRAINS_AT_ONCE * grain
    found = []
    for first in range(0, sizes[1], rows):
        last = min(first + rows, sizes[1])
        # A grain reaches as far as the middles of its neighbours; twice the distances, so that they are whole numbers.
        low, high = ((2 * row + 1 + 2 * start - grain) // (2 * grain) for row in (first, last - 1))
        low, high = (max(0, low), min(sizes[0], high + 2)) if rows < sizes[1] else (0, sizes[0])
        weights = _weights(high - low, last - first, start + first - low * grain, grain, values.dtype, values.device)
        grains = values if high - low == sizes[0] else values.narrow(axis, low, high - low)
        found.append(weights @ grains.flatten(axis + 1))
    return joined(found, dim=axis).unflatten(-1, values.shape[axis + 1 :])


@lru_cache(maxsize=32)
def _weights(num: int, num_cells: int, start: int, grain: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return the matrix that interpolates grains along a side of a box to cells; most steps repeat the last ones.

    Args:
        num: number of grains.
        num_cells: number of cells.
        start: number of cells from the start of the grains to the first cell.
        grain: number of cells along the side in a grain.
        dtype: type of the weights.
        device: device of the weights.
    """
    with torch.inference_mode(False):  # it may be used in training later
        # In whole numbers, so that boxes in the same relative position have the same weights to the last bit.
        middle = 2 * torch.arange(num_cells, device=device) + 1 + 2 * start - grain
        number = torch.arange(num, device=device) * (2 * grain)
        return (1 - (middle[:, None] - number).abs().to(dtype) / (2 * grain)).clamp_min(0)
