r"""Decoded blocks of cells become a field: where blocks overlap they are blended, so that patches do not show.

A block is decoded with a margin that reaches into its neighbours, and weighted by a ramp that falls to zero across it. Between
equal neighbours the ramps add up to one. Without a margin the blocks lie side by side. Where several ranks decode a frame,
each one puts together the tiles that its own blocks reach; where those of others reach too, it has its part of a sum.
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


@dataclass(frozen=True)
class Fold:
    """Placement of decoded blocks of one size on the tiles of one batch.

    Attributes:
        levels: the levels whose blocks these are, one level after the other.
        cells: size ``z, y, x`` of a block without its margins.
        margin: cells ``z, y, x`` of a margin.
        of_tile: blocks of a tile along ``z, y, x``.
        source: ``(o, k B)`` int32, position among the decoded blocks of the neighbour in each direction ``o`` of
            `directions` of each of the ``B`` blocks of each of the ``k`` tiles; -1 where that is not decoded.
        target: ``(o, c)`` int32, the same seen from the decoded blocks: which block of the tiles each piece lies over.
    """

    levels: tuple[int, ...]
    cells: tuple[int, ...]
    margin: tuple[int, ...]
    of_tile: tuple[int, ...]
    source: Tensor
    target: Tensor

    def to_tiles(self, values: Tensor) -> Tensor:
        """Add up blocks with their margins, ``(f, z, y, x, c)``, to tiles ``(k, f, z, y, x)``; zero where there is none."""
        return to_tiles(_Fold.apply(values, self), self.of_tile)


@dataclass(frozen=True)
class Blending:
    """Blending of the decoded blocks of all levels into the tiles of one batch.

    Attributes:
        folds: the ways of blocks to the tiles: all of one size together, or one fold per level where levels are added.
        weights: sums ``(k, 1, z, y, x)`` of the ramps of all blocks, whoever decodes them: one for all folds together, or
            one per fold where levels are added.
    """

    folds: tuple[Fold, ...]
    weights: tuple[Tensor, ...]


def blend(levels: Sequence[Tensor], blending: Blending) -> Tensor:
    """Put the blocks of one batch together, as far as this rank decodes them.

    Args:
        levels: the blocks ``(f, z, y, x, c)`` of every level with their margins, weighted by `ramp`; coarse to fine.
        blending: the plan by which they come together, see `matey.model.block_grid.plan_blending`.

    Returns:
        ``(k, f, z, y, x)``, the cells of the tiles; zero where there is no block.
    """
    weights = [weight.to(levels[0].dtype) for weight in blending.weights]
    folded = (fold.to_tiles(_joined([levels[level] for level in fold.levels])) for fold in blending.folds)
    if len(weights) == 1:
        return sum(folded, levels[0].new_zeros(())) / weights[0]
    return sum((added / weight for added, weight in zip(folded, weights, strict=True)), levels[0].new_zeros(()))


def _joined(blocks: Sequence[Tensor]) -> Tensor:
    return blocks[0] if len(blocks) == 1 else torch.cat([*blocks], dim=-1)


def to_tiles(blocks: Tensor, of_tile: Sequence[int]) -> Tensor:
    """Lay blocks ``(f, z, y, x, k B)`` out as the tiles ``(k, f, z, y, x)`` that have ``of_tile`` of them along ``z, y, x``."""
    Z, Y, X = of_tile
    return rearrange(blocks, "f z y x (k Z Y X) -> k f (Z z) (Y y) (X x)", Z=Z, Y=Y, X=X)


def ramp(cells: Sequence[int], margin: Sequence[int]) -> Tensor:
    """Return the weight of each cell of a block with its margins, ``(z, y, x)``.

    A product of ramps that are one half on the borders of the block.
    """
    ramps = []
    for size, reach in zip(cells, margin, strict=True):
        places = (place + 0.5 for place in range(-reach, size + reach))
        nearest = (min(place, size - place) for place in places)  # to a border, negative in the margin
        ramps.append([min(0.5 + near / (2 * reach), 1.0) if reach else 1.0 for near in nearest])
    z, y, x = ramps
    return torch.tensor([[[a * b * c for c in x] for b in y] for a in z])


def directions(margin: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Return the steps ``z, y, x`` to the neighbours whose margins reach into a block, and to itself."""
    return product(*((-1, 0, 1) if reach else (0,) for reach in margin))


class _Fold(torch.autograd.Function):
    """Gather for each block of the result the pieces of its neighbours that lie over it.

    A piece of a block lies over one block only, so the backward pass gathers too: no two of its terms meet, and the result is
    the same on every run. Blocks are the last axis, along which a gather is several times as fast as of small pieces.
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
    """Return per direction the piece of the neighbour there, and the cells of a block that it lies over."""
    for direction in directions(margin):
        piece, under = [], []
        for step, size, reach in zip(direction, cells, margin, strict=True):
            # For steps 0, 1 and -1: itself, the next one with the margin at its begin, the one before with that at its end.
            piece.append((slice(reach, reach + size), slice(0, reach), slice(reach + size, None))[step])
            under.append((slice(0, size), slice(size - reach, size), slice(0, reach))[step])
        yield tuple(piece), tuple(under)


def _columns(values: Tensor, index: Tensor, missing: Tensor) -> Tensor:
    """Return the columns ``(..., n)`` of values at an index ``(n,)``, zero where they are missing."""
    if not values.shape[-1]:
        return values.new_zeros(*values.shape[:-1], len(index))
    columns = values.flatten(0, -2).index_select(1, index).masked_fill_(missing, 0)
    return columns.view(*values.shape[:-1], len(index))
