"""The grid of the blocks that patches are decoded to, and the plan that places blocks on the tiles they reach.

Everything here is integers that follow from the positions of tokens, found once per micro-batch before any token is decoded.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from matey.model.blending import Blending, Fold, directions, pieces, ramp, to_tiles
from matey.tokens.patches import Patch, unravelled
from matey.tokens.tiles import Tiles

SMALLEST_WEIGHT = 1e-6  # a cell under any block has a weight of at least one eighth


@dataclass(frozen=True)
class BlockGrid:
    """The blocks that the patches of one level are cut into, and the blocks among them that reach some tiles.

    Blocks are numbered by sample, then ``z, y, x``, on the grid that the patches cover. Only the lines along ``x`` that reach
    the tiles are considered; within these, blocks are also numbered line after line.

    Attributes:
        tiles: tiles of the frame that are assembled.
        cells: size ``z, y, x`` of a block without its margins; it divides tiles and patches.
        margin: cells ``z, y, x`` of a margin, at most half a block.
        lines: ``(b Z Y,)``, number of each line among those that reach the tiles; -1 for all other lines.
        reaching: ``(o, k, B)``, number in these lines of each block's neighbour in direction ``o`` of `directions`, for the
            ``B`` blocks of each of ``k`` tiles; -1 beyond the domain. The neighbour's margin reaches into the block; one
            direction is the block itself.
    """

    tiles: Tiles
    cells: tuple[int, ...]
    margin: tuple[int, ...]
    lines: Tensor
    reaching: Tensor

    @classmethod
    def over(cls, tiles: Tiles, cells: tuple[int, ...], margin: tuple[int, ...]) -> BlockGrid:
        """Find the blocks that reach some tiles."""
        of_tile = [size // block for size, block in zip(tiles.tile[1:], cells, strict=True)]
        around, shape = [1 if reach else 0 for reach in margin], _shape(tiles, cells)
        sample, *corner = unravelled(tiles.row, tiles.grid)
        along = []  # (k, B) per axis: places of a tile's blocks and of the ring around them, -1 beyond the domain
        axes = zip(corner, of_tile, around, shape[1:], tiles.frames.wraps, strict=True)
        for first, count, ring, length, wraps in axes:
            at = first[:, None] * count + torch.arange(-ring, count + ring, device=first.device)
            along.append(at % length if wraps else at.where((at >= 0) & (at < length), -1))
        z, y, x = along
        line = (sample[:, None, None] * shape[1] + z[:, :, None]) * shape[2] + y[:, None]
        line = line.where((z[:, :, None] >= 0) & (y[:, None] >= 0), math.prod(shape[:3]))  # one more, for those beyond
        is_there = torch.zeros(math.prod(shape[:3]) + 1, dtype=torch.bool, device=line.device)
        is_there[line.flatten()] = True
        lines = (is_there.cumsum(0) - 1).where(is_there, -1)[:-1]
        kind = torch.int32 if len(lines) * shape[3] < 2**31 else torch.int64
        begin = (F.pad(lines, (0, 1), value=-1) * shape[3])[line].to(kind)[..., None]
        x = x.to(kind)[:, None, None]
        number, reaching = (begin + x).where((begin >= 0) & (x >= 0), -1), []  # (k, z, y, x), with a ring around a tile
        for direction in directions(margin):
            starts = [ring + step for ring, step in zip(around, direction, strict=True)]
            cut = (slice(start, start + size) for start, size in zip(starts, of_tile, strict=True))
            reaching.append(number[:, *cut].flatten(1))
        return cls(tiles, cells, margin, lines, torch.stack(reaching))

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
        number, *corner = unravelled(row[:, None, None, None], self.tiles.frames.grid_of(patch))
        for axis, (first, size, cells, length) in enumerate(
            zip(corner, patch[1:], self.cells, self.shape[1:], strict=True), start=1
        ):
            inside = torch.arange(size // cells, device=row.device).view([-1 if at == axis else 1 for at in range(4)])
            number = number * length + first * (size // cells) + inside
        return number.flatten()

    def sources(self, number: Tensor) -> Tensor:
        """Return the positions ``(o, k, B)`` int32 of the blocks of `reaching` in a list ``number``; -1 for missing blocks."""
        length = self.shape[3]
        line = self.lines[number // length]
        size = (int(self.lines.max()) + 1) * length if len(self.lines) else 0
        # Place 0 takes the blocks outside the lines, and is then read for blocks that are not in the list.
        place = torch.full((size + 1,), -1, dtype=torch.int32, device=number.device)
        order = torch.arange(len(number), dtype=torch.int32, device=number.device)
        place[(line * length + number % length + 1).where(line >= 0, 0)] = order
        place[0] = -1
        return place.index_select(0, self.reaching.flatten() + 1).view_as(self.reaching)

    def weights(self, there: Tensor, dtype: torch.dtype) -> Tensor:
        """Add up the ramps of blocks with their margins, ``(k, 1, z, y, x)``.

        Args:
            there: mask ``(o, k, B)`` of the blocks of `reaching` that exist.
            dtype: precision of the result.
        """
        there = there.flatten(1).to(dtype)
        ramps = ramp(self.cells, self.margin).to(there)[..., None]
        weights = ramps.new_zeros(*self.cells, there.shape[1])
        for (piece, under), blocks in zip(pieces(self.cells, self.margin), there, strict=True):
            weights[under].addcmul_(ramps[piece], blocks)
        return to_tiles(weights[None], self.of_tile)

    @property
    def of_tile(self) -> tuple[int, ...]:
        """Number of blocks of a tile along ``z, y, x``."""
        return tuple(size // block for size, block in zip(self.tiles.tile[1:], self.cells, strict=True))


@dataclass(frozen=True)
class BlockSet:
    """The blocks of one level.

    Attributes:
        number: ``(c,)`` numbers, in the grid of blocks, of the blocks that this rank decodes.
        present: ``(d,)`` numbers of the blocks that all ranks decode.
        grid: the grid of blocks of the level.
    """

    number: Tensor
    present: Tensor
    grid: BlockGrid


def plan_blending(levels: Sequence[BlockSet], dtype: torch.dtype, *, add_levels: bool) -> Blending:
    """Plan how the blocks of one batch are placed on the tiles that this rank's blocks reach.

    Args:
        levels: blocks of every level, coarse to fine, over the same tiles.
        dtype: precision of the weights.
        add_levels: whether finer blocks are added to coarser ones; otherwise the blocks of all levels share the domain, and
            blocks of two levels are blended where they meet.
    """
    together = [(level,) for level in range(len(levels))] if add_levels else _by_size(levels)
    folds, weights = [], []
    for numbers in together:
        grid = levels[numbers[0]].grid
        number, present = (
            torch.cat([getattr(levels[level], name) for level in numbers]) for name in ("number", "present")
        )
        source = grid.sources(number).flatten(1)
        folds.append(Fold(numbers, grid.cells, grid.margin, grid.of_tile, source, _targets(source, len(number))))
        # With the weights of a whole level, values that are added fade to zero beside a patch that is not split.
        there = grid.reaching if add_levels else grid.sources(present)
        weights.append(grid.weights(there >= 0, dtype))
    if not add_levels:
        weights = [sum(weights[1:], weights[0]).clamp_min(SMALLEST_WEIGHT)]
    return Blending(tuple(folds), tuple(weights))


def _by_size(levels: Sequence[BlockSet]) -> list[tuple[int, ...]]:
    """Join levels whose blocks have the same size; two levels that share the domain never have a block in the same place."""
    same: dict[tuple[Sequence[int], Sequence[int]], tuple[int, ...]] = {}
    for number, blocks in enumerate(levels):
        size = blocks.grid.cells, blocks.grid.margin
        same[size] = (*same.get(size, ()), number)
    return list(same.values())


def _targets(source: Tensor, num_blocks: int) -> Tensor:
    """Return where each block's pieces go, ``(o, c)`` int32: the block of the tiles under each, or -1."""
    target = torch.full((len(source), num_blocks + 1), -1, dtype=torch.int32, device=source.device)
    numbers = torch.arange(source.shape[1], dtype=torch.int32, device=source.device)
    for of_direction, into in zip(source, target, strict=True):
        into[of_direction] = numbers  # the last place, index -1, takes blocks that are not decoded
    return target[:, :-1]


def _shape(tiles: Tiles, cells: Sequence[int]) -> tuple[int, int, int, int]:
    z, y, x = (size // block for size, block in zip(tiles.frames.covered, cells, strict=True))
    return tiles.frames.num_samples, z, y, x
