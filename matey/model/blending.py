r"""Assembles a field from decoded blocks of cells; overlapping blocks are blended, so that patch borders do not show.

A block is decoded with a margin that reaches into its neighbours; a ramp that falls to zero across the margin weights it.
Between equal neighbours the ramps add up to one. Without a margin the blocks lie side by side. Where several ranks decode a
frame, each rank assembles the tiles that its own blocks reach; other ranks may hold further terms of the same sums.
Blocks of four cells with margins m of two, along one axis:

      weight 1            A       B
             3/4        /   \   /   \
             1/2      /       X       \            the ramps cross at one half, on the border of the two blocks
             1/4    /       /   \       \
                   m m|a a a a|b b b b|m m         A reaches over two cells of b, B over two of a
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from matey.model.one_tensor import joined


@dataclass(frozen=True)
class Fold:
    """Placement of decoded blocks of one size on the tiles of one batch.

    Attributes:
        levels: numbers of the levels of the blocks, in the order of the blocks.
        cells: size ``z, y, x`` of a block without its margins.
        margin: cells ``z, y, x`` of a margin.
        of_tile: number of blocks of a tile along ``z, y, x``.
        source: ``(o, k B)`` int32, position among the decoded blocks of each block's neighbour in direction ``o`` of
            `directions`, for the ``B`` blocks of each of ``k`` tiles; -1 where the neighbour is not decoded.
        target: ``(o, c)`` int32, inverse of ``source``: the block of the tiles under each piece of each decoded block, or -1.
    """

    levels: tuple[int, ...]
    cells: tuple[int, ...]
    margin: tuple[int, ...]
    of_tile: tuple[int, ...]
    source: Tensor
    target: Tensor

    def to_tiles(self, values: Tensor) -> Tensor:
        """Add up blocks with their margins, ``(f, z, y, x, c)``, to tiles ``(k, f, z, y, x)``; zero where no block is."""
        return to_tiles(_Fold.apply(values, self), self.of_tile)


@dataclass(frozen=True)
class Blending:
    """Plan for blending the decoded blocks of all levels into the tiles of one batch.

    Attributes:
        folds: placements of the blocks on the tiles: one per block size, or one per level where levels are added.
        weights: sums ``(k, 1, z, y, x)`` of the ramps of all ranks' blocks: one tensor for all folds, or one per fold where
            levels are added.
    """

    folds: tuple[Fold, ...]
    weights: tuple[Tensor, ...]


def blend(levels: Sequence[Tensor], blending: Blending) -> Tensor:
    """Blend the blocks of one batch that this rank decodes.

    Args:
        levels: the blocks ``(f, z, y, x, c)`` of every level with their margins, weighted by `ramp`; coarse to fine.
        blending: plan of the batch, see `matey.model.block_grid.plan_blending`.

    Returns:
        ``(k, f, z, y, x)``, the cells of the tiles; zero where there is no block.
    """
    weights = [weight.to(levels[0].dtype) for weight in blending.weights]
    folded = (fold.to_tiles(joined([levels[level] for level in fold.levels], dim=-1)) for fold in blending.folds)
    if len(weights) == 1:
        return sum(folded, levels[0].new_zeros(())) / weights[0]
    return sum((added / weight for added, weight in zip(folded, weights, strict=True)), levels[0].new_zeros(()))


def to_tiles(blocks: Tensor, of_tile: Sequence[int]) -> Tensor:
    """Arrange blocks ``(f, z, y, x, k B)`` as tiles ``(k, f, z, y, x)`` of ``of_tile`` blocks along ``z, y, x``."""
    Z, Y, X = of_tile
    return rearrange(blocks, "f z y x (k Z Y X) -> k f (Z z) (Y y) (X x)", Z=Z, Y=Y, X=X)


def ramp(cells: Sequence[int], margin: Sequence[int]) -> Tensor:
    """Return the weight of each cell of a block with its margins, ``(z, y, x)``.

    The weight is a product of one ramp per axis; each ramp is one half on the borders of the block.
    """
    ramps = []
    for size, reach in zip(cells, margin, strict=True):
        places = (place + 0.5 for place in range(-reach, size + reach))
        nearest = (min(place, size - place) for place in places)  # distance to a border, negative in the margin
        ramps.append([min(0.5 + near / (2 * reach), 1.0) if reach else 1.0 for near in nearest])
    z, y, x = ramps
    return torch.tensor([[[a * b * c for c in x] for b in y] for a in z])


def directions(margin: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Return the steps ``z, y, x`` to the neighbours whose margins reach into a block, and to the block itself."""
    return product(*((-1, 0, 1) if reach else (0,) for reach in margin))


class _Fold(torch.autograd.Function):
    """Gather for each block of the result the pieces of its neighbours that lie over it.

    A piece lies over one block only, so the backward pass is a gather too: it adds nothing up, and its result is the same on
    every run. Blocks are the last axis because a gather along it is several times as fast as a gather of small pieces.
    """

    @staticmethod
    def forward(ctx: Any, values: Tensor, fold: Fold) -> Tensor:  # noqa: ANN401
        source = fold.source
        folded = values.new_zeros(len(values), *fold.cells, source.shape[1])
        places = zip(pieces(fold.cells, fold.margin), source.clamp_min(0), source < 0, strict=True)
        for (piece, under), index, missing in places:
            folded[:, *under].add_(_columns(values[:, *piece], index, missing))
        ctx.fold = fold
        return folded

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # noqa: ANN401
        fold, target = ctx.fold, ctx.fold.target
        size = [cells + 2 * reach for cells, reach in zip(fold.cells, fold.margin, strict=True)]
        of_values = gradient.new_empty(len(gradient), *size, target.shape[1])
        places = zip(pieces(fold.cells, fold.margin), target.clamp_min(0), target < 0, strict=True)
        for (piece, under), index, missing in places:
            of_values[:, *piece] = _columns(gradient[:, *under], index, missing)
        return of_values, None


def pieces(cells: Sequence[int], margin: Sequence[int]) -> Iterator[tuple[tuple[slice, ...], tuple[slice, ...]]]:
    """Yield for each direction the neighbour's piece that lies over a block, and the cells of the block under it."""
    for direction in directions(margin):
        piece, under = [], []
        for step, size, reach in zip(direction, cells, margin, strict=True):
            # For steps 0, 1 and -1: the block itself, the next block's margin at its start, the previous block's at its end.
            piece.append((slice(reach, reach + size), slice(0, reach), slice(reach + size, None))[step])
            under.append((slice(0, size), slice(size - reach, size), slice(0, reach))[step])
        yield tuple(piece), tuple(under)


def _columns(values: Tensor, index: Tensor, missing: Tensor) -> Tensor:
    """Return the columns ``(..., n)`` of values at an index ``(n,)``, zero where they are missing."""
    if not values.shape[-1]:
        return values.new_zeros(*values.shape[:-1], len(index))
    columns = values.flatten(0, -2).index_select(1, index).masked_fill_(missing, 0)
    return columns.view(*values.shape[:-1], len(index))
