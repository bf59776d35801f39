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

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from matey.model.blocks import Near, Norm
from matey.model.modules import ModuleList
from matey.model.sequence_group import SequenceGroup
from matey.tokens.patches import Patch, factor_stages, parts_along


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
        (_, pz, py, px), pattern = self.patch, "b c (Z z) (Y y) (X x) -> (b Z Y X) (z y x c)"
        # Channels stay side by side, as they lie in memory, and whole leaves are copied: several times as fast as by value.
        cut = [
            F.embedding(row, rearrange(each, pattern, z=pz, y=py, x=px))
            for each, row in zip(features, rows, strict=True)
        ]
        found = torch.cat(cut).unflatten(1, (pz, py, px, -1))
        for stage, (_, z, y, x) in zip(self.stages, self.splits, strict=True):
            found = stage(rearrange(found, "m (Z z) (Y y) (X x) c -> m Z Y X (z y x c)", z=z, y=y, x=x))
        return found.flatten(0, -2)


class NeighbourMap(nn.Linear):
    """A dense map of a token and its neighbours, norm first, added to the token."""

    def __init__(self, width: int, num_places: int) -> None:
        super().__init__(num_places * width, width)
        self.norm = Norm(width)

    def forward(self, tokens: Tensor, sequence_group: SequenceGroup, near: Near) -> Tensor:  # type: ignore[override]
        """Map ``(n, e)`` to ``(n, e)``."""
        route, neighbours = near
        seen = sequence_group.exchange_tokens(F.gelu(self.norm(tokens)), route)
        return tokens + super().forward(neighbours.around(seen).flatten(1))


class Bound(nn.Module):
    """Bound the root mean square of every token at `LARGEST`; small tokens, as of flat regions, stay nearly as they are."""

    LARGEST = 10.0

    def forward(self, tokens: Tensor) -> Tensor:
        """Map ``(n, e)`` to ``(n, e)``."""
        return F.rms_norm(tokens, tokens.shape[1:], eps=self.LARGEST**2) * self.LARGEST


class Giving(nn.Linear):
    """Map tokens of one level to the features of the grains of their leaves; zero at first, so that tokens change nothing."""

    def __init__(self, patch: Patch, grain: Patch, channels: int, width: int) -> None:
        super().__init__(width, math.prod(parts_along(patch, grain)) * channels)
        self.channels = channels

    def forward(self, tokens: Tensor) -> Tensor:
        """Map ``(m, e)`` to the grains ``(m g, c)``, those of a leaf one after the other."""
        return super().forward(tokens).view(-1, self.channels)
