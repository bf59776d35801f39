"""Decoded blocks of cells become a field: where blocks overlap they are blended, so that patches do not show.

A block is decoded with a margin that reaches into its neighbours, and weighted by a ramp that falls to zero across it. Between
equal neighbours the ramps add up to one. Without a margin the blocks lie side by side. Where several ranks decode a frame,
each one puts together the tiles that its own blocks reach; where those of others reach too, it has its part of a sum.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from matey.tokens.coverage import Tiles
from matey.tokens.patches import Patch

SMALLEST_WEIGHT = 1e-6  # that of a cell is at least one eighth where it has a block at all


@dataclass(frozen=True)
class BlockGrid:
    """The blocks that the patches of one level are cut into, and those of them that bear on some tiles.

    Blocks are numbered by sample, then ``z, y, x`` on the grid of blocks of what the patches cover.

    Attributes:
        tiles: the part of the frame that is put together.
        cells: size ``z, y, x`` of a block without its margins; it divides tiles and patches.
        margin: cells ``z, y, x`` of a margin, at most half a block.
        reaching: ``(o, k, B)``, number of the neighbour in each direction ``o`` of `directions` for each of the ``B``
            blocks of each of the ``k`` tiles; the margin of that neighbour reaches into the block. It is -1 beyond the
            domain; one direction is the block itself.
    """

    tiles: Tiles
    cells: tuple[int, ...]
    margin: tuple[int, ...]
    reaching: Tensor

    @classmethod
    def over(cls, tiles: Tiles, cells: tuple[int, ...], margin: tuple[int, ...]) -> BlockGrid:
        """Cut what the patches cover into blocks."""
        shape = _shape(tiles, cells)
        number = torch.arange(math.prod(shape), device=tiles.row.device).view(shape)
        around = [1 if reach else 0 for reach in margin]
        for axis, (wraps, ring) in enumerate(zip(tiles.frames.wraps, around, strict=True), start=1):
            if ring:  # beyond the domain: the block at its other end, or none
                first, last = number.narrow(axis, 0, 1), number.narrow(axis, shape[axis] - 1, 1)
                ends = (last, first) if wraps else (torch.full_like(first, -1),) * 2
                number = torch.cat([ends[0], number, ends[1]], dim=axis)
        of_tile = [size // block for size, block in zip(tiles.tile[1:], cells, strict=True)]
        for axis, (size, ring) in enumerate(zip(of_tile, around, strict=True), start=1):
            number = number.unfold(axis, size + 2 * ring, size)
        # (b, Z, Y, X, z, y, x), the blocks of each tile and those around them
        number = number[torch.unravel_index(tiles.row, number.shape[:4])]
        reaching = []
        for direction in directions(margin):
            starts = [ring + step for ring, step in zip(around, direction, strict=True)]
            cut = (slice(start, start + size) for start, size in zip(starts, of_tile, strict=True))
            reaching.append(number[:, *cut])
        return cls(tiles, cells, margin, torch.stack(reaching).flatten(2))

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Number of samples, and of blocks along ``z, y, x``."""
        return _shape(self.tiles, self.cells)

    @property
    def num_blocks(self) -> int:
        """Number of blocks of all samples."""
        return math.prod(self.shape)

    def numbers(self, patch: Patch, row: Tensor) -> Tensor:
        """Return the numbers ``(m x blocks of a patch,)`` of the blocks of some patches, patch after patch.

        Args:
            patch: size of the level's patches.
            row: ``(m,)`` rows of the patches in ``patchify`` of a single frame.
        """
        sizes = {f"s{axis}": p // c for axis, p, c in zip("zyx", patch[1:], self.cells, strict=True)}
        number = torch.arange(self.num_blocks, device=row.device).view(self.shape)
        return rearrange(number, "b (Z sz) (Y sy) (X sx) -> (b Z Y X) (sz sy sx)", **sizes)[row].flatten()

    def sources(self, number: Tensor) -> Tensor:
        """Return the positions ``(o, k, B)`` of the blocks of `reaching` in a list ``number``; -1 for those not in it."""
        place = number.new_full((self.num_blocks + 1,), -1)  # the last one stands for -1
        place[number] = torch.arange(len(number), device=number.device)
        return place[self.reaching]

    def fold(self, values: Tensor, source: Tensor) -> Tensor:
        """Add up blocks with their margins.

        Args:
            values: ``(f, z, y, x, c)``, blocks with their margins.
            source: ``(o, k, B)``, see `sources`.

        Returns:
            ``(k, f, z, y, x)``, the cells of the tiles; zero where there is no block.
        """
        return self._to_tiles(_Fold.apply(values, source.flatten(1), self.cells, self.margin))

    def weights(self, there: Tensor, dtype: torch.dtype) -> Tensor:
        """Add up the ramps of blocks with their margins, ``(k, 1, z, y, x)``.

        Args:
            there: mask ``(o, k, B)`` of the blocks of `reaching` that exist.
            dtype: precision of the result.
        """
        there = there.flatten(1).to(dtype)
        ramps = ramp(self.cells, self.margin).to(there)[..., None]
        weights = ramps.new_zeros(*self.cells, there.shape[1])
        for (piece, under), blocks in zip(_pieces(self.cells, self.margin), there, strict=True):
            weights[under].addcmul_(ramps[piece], blocks)
        return self._to_tiles(weights[None])

    def _to_tiles(self, blocks: Tensor) -> Tensor:
        Z, Y, X = (size // block for size, block in zip(self.tiles.tile[1:], self.cells, strict=True))
        return rearrange(blocks, "f z y x (k Z Y X) -> k f (Z z) (Y y) (X x)", Z=Z, Y=Y, X=X)


@dataclass(frozen=True)
class Blocks:
    """Decoded blocks of one level.

    Attributes:
        values: ``(f, z, y, x, c)``, the blocks with their margins, weighted by `ramp`.
        number: ``(c,)``, number of each block in the grid of blocks.
        present: ``(d,)`` numbers of the blocks that all ranks decode.
        grid: the grid of blocks of the level.
    """

    values: Tensor
    number: Tensor
    present: Tensor
    grid: BlockGrid


def blend(levels: Sequence[Blocks], *, add_levels: bool) -> Tensor:
    """Put the blocks of one group of samples together, as far as this rank decodes them.

    Args:
        levels: blocks of every level, coarse to fine, over the same tiles.
        add_levels: whether finer blocks are added to what coarser ones say; otherwise the blocks of all levels share the
            domain, and those of two levels are blended where they meet.

    Returns:
        ``(k, f, z, y, x)``, the cells of the tiles; zero where there is no block.
    """
    total = weight = levels[0].values.new_zeros(())
    for blocks in levels if add_levels else _by_size(levels):
        grid = blocks.grid
        decoded = grid.fold(blocks.values, grid.sources(blocks.number))
        if add_levels:
            # Beside a patch that is not split, what is added fades to nothing: the weights are those of a whole level.
            total = total + decoded / grid.weights(grid.reaching >= 0, decoded.dtype)
        else:
            total = total + decoded
            weight = weight + grid.weights(grid.sources(blocks.present) >= 0, decoded.dtype)
    return total if add_levels else total / weight.clamp_min(SMALLEST_WEIGHT)


def _by_size(levels: Sequence[Blocks]) -> list[Blocks]:
    """Join levels whose blocks have one size. Where levels share the domain, no two have a block in the same place."""
    same: dict[tuple[Sequence[int], Sequence[int]], list[Blocks]] = {}
    for blocks in levels:
        same.setdefault((blocks.grid.cells, blocks.grid.margin), []).append(blocks)
    return [
        Blocks(
            torch.cat([blocks.values for blocks in group], dim=-1),
            torch.cat([blocks.number for blocks in group]),
            torch.cat([blocks.present for blocks in group]),
            group[0].grid,
        )
        for group in same.values()
    ]


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
    def forward(ctx: Any, values: Tensor, source: Tensor, cells: Sequence[int], margin: Sequence[int]) -> Tensor:  # noqa: ANN401
        num, num_folded = values.shape[-1], source.shape[1]
        folded = values.new_zeros(len(values), *cells, num_folded)
        places = zip(_pieces(cells, margin), source.clamp_min(0), source < 0, strict=True)
        for (piece, under), index, missing in places:
            folded[:, *under].add_(_columns(values[:, *piece], index, missing))
        # Where each block's pieces went.
        target = torch.full((len(source), num + 1), -1, dtype=torch.int32, device=source.device)
        numbers = torch.arange(num_folded, dtype=torch.int32, device=source.device)
        target.scatter_(1, source.where(source >= 0, num), numbers.expand_as(source))
        ctx.save_for_backward(target[:, :-1])
        ctx.cells, ctx.margin = cells, margin
        return folded

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:  # noqa: ANN401
        (target,) = ctx.saved_tensors
        size = [cells + 2 * reach for cells, reach in zip(ctx.cells, ctx.margin, strict=True)]
        of_values = gradient.new_empty(len(gradient), *size, target.shape[1])
        places = zip(_pieces(ctx.cells, ctx.margin), target.clamp_min(0), target < 0, strict=True)
        for (piece, under), index, missing in places:
            of_values[:, *piece] = _columns(gradient[:, *under], index, missing)
        return of_values, None, None, None


def _pieces(cells: Sequence[int], margin: Sequence[int]) -> Iterator[tuple[tuple[slice, ...], tuple[slice, ...]]]:
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


def _shape(tiles: Tiles, cells: Sequence[int]) -> tuple[int, int, int, int]:
    z, y, x = (size // block for size, block in zip(tiles.frames.covered, cells, strict=True))
    return tiles.frames.num_samples, z, y, x
