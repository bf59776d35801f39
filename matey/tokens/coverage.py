"""The cells of the predicted frame that tokens stand for, and the cells that their decoded patches reach.

Along one axis, rank 0 decodes the patches A and B and rank 1 the patch C. What is decoded reaches a margin beyond its patch:

      patches           |   A   |   B   |   C   |
      decoded on rank 0  <=================>             tiles_reached of rank 0: its own, and the first of rank 1's
      decoded on rank 1                <==========>
      held by rank 0    |===============|                tiles_of rank 0: those of its leaves
      changes ranks                  ->| |<-             routes: what one rank decodes of tiles that the other holds
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from matey.tokens.layout import TokenLayout
from matey.tokens.patches import Patch, extend, patch_grid, unpatchify
from matey.tokens.refinement import to_children
from matey.tokens.tiles import Frames, Tiles


def tiles_of(
    layout: TokenLayout, own: slice, frames: Sequence[Frames], patches: Sequence[Patch], tile: Patch
) -> list[Tiles]:
    """Return, for each batch, the tiles that hold cells of leaves among the tokens ``own``, and those cells."""
    chosen = torch.zeros_like(layout.is_leaf)
    chosen[own] = layout.is_leaf[own]
    masks = [level.any(dim=0) for level in _by_cell(layout, chosen, frames, patches, tile)]
    return [_tiles(mask, of_batch, tile) for mask, of_batch in zip(masks, frames, strict=True)]


def tiles_reached(
    layout: TokenLayout,
    own: slice,
    frames: Sequence[Frames],
    patches: Sequence[Patch],
    reach: Sequence[int],
    tile: Patch,
) -> list[Tiles]:
    """Return, for each batch, the tiles that are reached by the patches decoded from the tokens ``own``.

    Args:
        layout: the layout of all tokens, not only of this rank's.
        own: the tokens of one rank; those of the last frame are decoded, whether their patches are split or not.
        frames: the frames of each batch.
        patches: levels from coarse to fine.
        reach: number of cells along ``z, y, x`` by which a decoded patch reaches into its neighbours.
        tile: size of a tile.
    """
    chosen = torch.zeros_like(layout.is_leaf)
    chosen[own] = True
    tiles = []
    for levels, of_batch in zip(_by_cell(layout, chosen, frames, patches, tile), frames, strict=True):
        tiles.append(_tiles(_wider(levels.any(dim=0), reach, of_batch), of_batch, tile))
    return tiles


def routes(
    layout: TokenLayout,
    rank: Tensor,
    frames: Sequence[Frames],
    patches: Sequence[Patch],
    reach: Sequence[int],
    tile: Patch,
) -> list[Tensor]:
    """Find the tiles into which one rank decodes and in which another rank holds cells.

    Args:
        layout: the layout of all tokens.
        rank: ``(n,)`` rank of each token.
        frames: the frames of each batch.
        patches: levels from coarse to fine.
        reach: number of cells along ``z, y, x`` by which a decoded patch reaches into its neighbours.
        tile: size of a tile.

    Returns:
        One tensor ``(3, r)`` per batch, its columns in ascending order: the rank that decodes, the rank that has cells
        there, and the row of the tile.
    """
    decoders = _by_cell(layout, rank + 1, frames, patches, tile)  # from 1, since 0 is nobody
    holders = _by_cell(layout, (rank + 1) * layout.is_leaf, frames, patches, tile)
    return [
        _near(decoder, holder.amax(dim=0), of_batch, reach, tile)
        for decoder, holder, of_batch in zip(decoders, holders, frames, strict=True)
    ]


def held_by(tiles: Tiles, rank: int) -> Tensor:
    """Write the rank, counted from 1, over the places ``(b, Z, Y, X)`` of a part of the frame, and zero elsewhere."""
    rows = tiles.row.new_zeros(math.prod(tiles.grid), *tiles.places.shape[1:])
    rows = rows.index_copy(0, tiles.row, (rank + 1) * tiles.places.to(rows.dtype))
    return unpatchify(rows[:, None, None], (1, *tiles.grid[1:]))[:, 0, 0]


def tiles_around(tiles: Tiles, reach: Sequence[int]) -> Tiles:
    """Return the tiles that hold cells of a part of the frame or lie within ``reach`` cells ``z, y, x`` of them."""
    return _tiles(_wider(held_by(tiles, 0).bool(), reach, tiles.frames), tiles.frames, tiles.tile)


def halo_routes(tiles: Sequence[Tiles], holders: Sequence[Tensor], reaches: Sequence[Sequence[int]]) -> list[Tensor]:
    """Find the tiles in which one rank holds cells that another rank's cells have within their reach.

    Args:
        tiles: this rank's part of each batch's frame.
        holders: places ``(b, Z, Y, X)`` of each frame with the rank that holds them, counted from 1, see `held_by`.
        reaches: number of cells along ``z, y, x``, for each batch.

    Returns:
        One tensor ``(3, r)`` per batch, its columns in ascending order: the rank that holds the cells, the rank that reaches
        them, and the row of the tile.
    """
    near = [
        _near(holder[None], holder, part.frames, reach, part.tile)
        for part, holder, reach in zip(tiles, holders, reaches, strict=True)
    ]
    return [columns[[1, 0, 2]].unique(dim=1) for columns in near]


def _near(near: Tensor, holder: Tensor, frames: Frames, reach: Sequence[int], tile: Patch) -> Tensor:
    """Find the ranks within reach of what another rank holds.

    Args:
        near: places ``(level, b, Z, Y, X)`` with ranks, counted from 1; 0 is nobody.
        holder: places ``(b, Z, Y, X)`` with the rank that holds them, likewise.
        frames: the frames of the batch.
        reach: number of cells along ``z, y, x``.
        tile: size of a tile.

    Returns:
        ``(3, r)``, its columns in ascending order: the rank that is near, the rank that holds, the row of the holder's tile.
    """
    shape = Tiles(frames, tile, holder.flatten()[:0], holder[:0]).grid
    row = torch.arange(math.prod(shape), device=holder.device).view(shape)
    for axis, (size, length) in enumerate(zip(holder.shape[1:], shape[1:], strict=True), start=1):
        row = row.repeat_interleave(size // length, dim=axis)
    radius = _radius(reach, holder, frames)
    around = _with_ring(near, radius, frames)
    num_ranks = int(max(near.max(), holder.max()))
    keys = []
    for start in product(*(range(2 * r + 1) for r in radius)):
        cut = (slice(first, first + size) for first, size in zip(start, holder.shape[1:], strict=True))
        there = around[:, :, *cut]
        apart = (there != holder) & (there > 0) & (holder > 0)
        key = ((there - 1) * num_ranks + holder - 1) * math.prod(shape) + row
        keys.append(key[apart])
    keys = torch.cat(keys).unique()
    return torch.stack(torch.unravel_index(keys, (num_ranks, num_ranks, math.prod(shape))))


def _wider(mask: Tensor, reach: Sequence[int], frames: Frames) -> Tensor:
    """Add to a mask ``(b, Z, Y, X)`` the places within reach of its own."""
    radius = _radius(reach, mask, frames)
    if not any(radius):
        return mask
    around = _with_ring(mask.float(), radius, frames)
    return F.max_pool3d(around[:, None], [2 * r + 1 for r in radius], stride=1)[:, 0].bool()


def _tiles(mask: Tensor, frames: Frames, tile: Patch) -> Tiles:
    """Return the tiles that hold some of the places ``(b, Z, Y, X)`` of a mask."""
    counts = {
        axis: size * length // covered
        for axis, size, length, covered in zip("zyx", tile[1:], mask.shape[1:], frames.covered, strict=True)
    }
    by_tile = rearrange(mask, "b (Z z) (Y y) (X x) -> (b Z Y X) z y x", **counts)
    row = by_tile.flatten(1).any(dim=1).nonzero(as_tuple=True)[0]
    return Tiles(frames, tile, row, by_tile[row])


def _by_cell(
    layout: TokenLayout, value: Tensor, frames: Sequence[Frames], patches: Sequence[Patch], tile: Patch
) -> list[Tensor]:
    """Write a value ``(n,)`` of each token of the last frame over its patch, and zero elsewhere.

    Returns:
        One tensor ``(level, b, Z, Y, X)`` per batch, on a grid that divides the finest patch and the tile.
    """
    z, y, x = (math.gcd(*sizes) for sizes in zip(patches[-1][1:], tile[1:], strict=True))
    written = []
    for number, of_batch in enumerate(frames):
        levels = []
        for level, patch in enumerate(patches):
            _, Z, Y, X = patch_grid((1, *of_batch.covered), (1, *patch[1:]))
            at_level = value.new_zeros(of_batch.num_samples * Z * Y * X)
            index = layout.is_last & (layout.level == level) & (layout.batch == number)
            at_level[layout.row[index] // (of_batch.window[0] // patch[0])] = value[index]
            levels.append(to_children(at_level.view(of_batch.num_samples, Z, Y, X), patch, (1, z, y, x)))
        written.append(torch.stack(levels))
    return written


def _radius(reach: Sequence[int], places: Tensor, frames: Frames) -> list[int]:
    """Return how many places ``(..., Z, Y, X)`` a reach in cells is, rounded up."""
    return [-(-r * n // c) for r, n, c in zip(reach, places.shape[-3:], frames.covered, strict=True)]


def _with_ring(places: Tensor, radius: Sequence[int], frames: Frames) -> Tensor:
    """Continue places ``(..., Z, Y, X)`` beyond each end, around the domain where it goes on there."""
    ends = [size + more for size, more in zip(places.shape[-3:], radius, strict=True)]
    return extend(places, ends, frames.wraps, before=radius)
