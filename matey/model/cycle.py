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
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from matey.model.cells import Sides
from matey.model.local import interpolated
from matey.model.module_list import ModuleList
from matey.model.one_tensor import joined
from matey.tokens.layout import TokenLayout
from matey.tokens.neighbours import Neighbours, neighbours_of
from matey.tokens.patches import Patch, extend, factor_stages, parts_along, patches_at, unravelled
from matey.tokens.tiles import Frames


@dataclass(frozen=True)
class OnCells:
    """The cells of one batch, and what their leaves give them.

    Attributes:
        inputs: ``(b, 2, f, z, y, x)``, the last frame and the last change, normalised.
        sides: the sides of the box of cells.
        grains: ``(l, b, Z, Y, X)``, the number of each grain in the list of all that leaves give, with one more grain on each side
            of the box. Several are added up where parents keep their tokens.
    """

    inputs: Tensor
    sides: Sides
    grains: Tensor


@dataclass(frozen=True)
class CyclePlan:
    """How tokens and cells exchange features.

    Attributes:
        neighbours: the nodes around all tokens.
        tokens: ``(m,)``, tokens of the last frame of each level, batch after batch.
        rows: ``(m,)``, their patches' rows in ``patchify`` of a frame, for each level and batch.
        order: ``(n,)``, the place of each token in the list that takes features, level by level; behind its end for tokens of
            earlier frames, which take none.
    """

    neighbours: Neighbours
    tokens: tuple[Tensor, ...]
    rows: tuple[tuple[Tensor, ...], ...]
    order: Tensor


def plan_cycle(
    layout: TokenLayout, frames: Sequence[Frames], patches: Sequence[Patch], *, keep_parents: bool
) -> tuple[CyclePlan, list[Tensor]]:
    """Plan a micro-batch; return the grains of each batch as well, see `OnCells`."""
    batch, level, is_last = layout.batch, layout.level, layout.is_last
    tokens, rows = [], []
    for number, patch in enumerate(patches):
        of_batches = [
            (is_last & (level == number) & (batch == each)).nonzero(as_tuple=True)[0] for each in range(len(frames))
        ]
        tokens.append(torch.cat(of_batches))
        times = [of_batch.window[0] // patch[0] for of_batch in frames]
        rows.append(tuple(layout.row[at].long() // t for at, t in zip(of_batches, times, strict=True)))
    taken = torch.cat(tokens)
    order = torch.full((layout.num_tokens,), len(taken), device=taken.device)
    order[taken] = torch.arange(len(taken), device=taken.device)
    plan = CyclePlan(neighbours_of(layout, frames, patches), tuple(tokens), tuple(rows), order)
    return plan, _grains(rows, frames, patches, keep_parents=keep_parents)


def _grains(
    rows: Sequence[Sequence[Tensor]], frames: Sequence[Frames], patches: Sequence[Patch], *, keep_parents: bool
) -> list[Tensor]:
    grain, first = grain_of(patches), 0
    found: list[list[Tensor]] = [[] for _ in frames]
    none = sum(
        len(row) * math.prod(parts_along(p, grain)) for p, level in zip(patches, rows, strict=True) for row in level
    )
    for patch, of_level in zip(patches, rows, strict=True):
        parts = parts_along(patch, grain)
        each = math.prod(parts)
        for of_batch, row, levels in zip(frames, of_level, found, strict=True):
            b, *grid = of_batch.grid_of(patch)
            numbers = torch.full((b * math.prod(grid), each), none, device=row.device)
            own = torch.arange(first, first + len(row) * each, device=row.device).view(-1, each)
            of_cells = {**dict(zip("ZYX", grid, strict=True)), **dict(zip("zyx", parts, strict=True))}
            on_grid = rearrange(numbers.index_copy(0, row, own), "(b Z Y X) (z y x) -> b (Z z) (Y y) (X x)", **of_cells)
            levels.append(_beyond(on_grid, of_batch, grain))
            first += len(row) * each
    # Without parents each grain is of one leaf, whose number is smaller than that of none.
    return [torch.stack(levels) if keep_parents else torch.stack(levels).amin(0, keepdim=True) for levels in found]


def _beyond(numbers: Tensor, frames: Frames, grain: Patch) -> Tensor:
    """Continue the numbers of grains ``(b, Z, Y, X)`` by one on each side, and drop those that hold no cell of the grid."""
    held = [-(-size // cells) for size, cells in zip(frames.window[1:], grain[1:], strict=True)]
    z, y, x = held
    return extend(numbers[:, :z, :y, :x], [size + 1 for size in held], frames.wraps, before=(1, 1, 1))


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
            features: ``(b, c, z, y, x)`` of each batch, as far as the coarsest patches reach.
            rows: rows ``(m,)`` of each batch's leaves in ``patchify`` of the features.
        """
        cut = [patches_at(each[:, None], self.patch, row) for each, row in zip(features, rows, strict=True)]
        found = torch.cat(cut).movedim(1, -1)  # (m, t, z, y, x, c)
        for stage, (_, z, y, x) in zip(self.stages, self.splits, strict=True):
            found = stage(rearrange(found, "m t (Z z) (Y y) (X x) c -> m t Z Y X (z y x c)", z=z, y=y, x=x))
        return found.flatten(0, -2)


class NeighbourMap(nn.Module):
    """A dense map of a token and its neighbours, added to the token."""

    def __init__(self, width: int, num_places: int) -> None:
        super().__init__()
        self.map = nn.Linear(num_places * width, width)

    def forward(self, tokens: Tensor, neighbours: Neighbours) -> Tensor:
        """Map ``(n, e)`` to ``(n, e)``."""
        return tokens + self.map(neighbours.around(F.gelu(tokens)).flatten(1))


class Giving(nn.Module):
    """Map tokens of one level to the features of the grains of their leaves; zero at first, so that tokens change nothing."""

    def __init__(self, patch: Patch, grain: Patch, channels: int, width: int) -> None:
        super().__init__()
        self.channels = channels
        self.map = nn.Linear(width, math.prod(parts_along(patch, grain)) * channels)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map ``(m, e)`` to the grains ``(m g, c)``, those of a leaf one after the other."""
        return self.map(tokens).view(-1, self.channels)


def on_cells(grains: Tensor, cells: OnCells, grain: Patch) -> Tensor:
    """Return what grains ``(g, c)`` give to the cells of a batch, ``(b, c, z, y, x)``."""
    numbers = cells.grains.flatten()
    values = F.embedding(numbers, torch.cat([grains, grains.new_zeros(1, grains.shape[1])]))
    values = values.view(*cells.grains.shape, -1).sum(dim=0)  # (b, Z, Y, X, c)
    sides = [slice(-1, size - 1) for size in values.shape[1:-1]]
    to = [slice(0, size) for size in cells.inputs.shape[-3:]]
    return interpolated(values, sides, grain[1:], to, (1, 1, 1)).movedim(-1, 1)
