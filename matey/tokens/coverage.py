"""The cells of the predicted frame that belong to tokens, and the cells that their decoded patches reach.

Along one axis, rank 0 decodes the patches A and B and rank 1 the patch C. A decoded patch reaches a margin beyond its cells:

      patches           |   A   |   B   |   C   |
      decoded on rank 0  <=================>             tiles_reached of rank 0: its own, and the first of rank 1's
      decoded on rank 1                <==========>
      held by rank 0    |===============|                tiles_of rank 0: those of its leaves
      changes ranks                  ->| |<-             routes: tiles that one rank decodes and the other holds

A rank looks at the coarsest patches that hold its tokens and at those around them, never at a whole frame.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from matey.tokens.bricks import Bricks, in_bricks
from matey.tokens.layout import TokenLayout
from matey.tokens.patches import Patch, parts_along, unravelled
from matey.tokens.refinement import to_children
from matey.tokens.tiles import Frames, Tiles


def tiles_of(
    layout: TokenLayout, own: slice, frames: Sequence[Frames], patches: Sequence[Patch], tile: Patch
) -> list[Tiles]:
    """Return, for each batch, the tiles that hold cells of leaves among the tokens ``own``, and those cells."""
    if _is_everything(layout, own, frames):
        return [_every_tile(of_batch, patches, tile, layout.row.device) for of_batch in frames]
    tokens = _of_last_frame(layout, own)
    written = _by_place(tokens, tokens.is_leaf, frames, patches, tile)
    return [_tiles(mask.any(dim=1), bricks, tile) for bricks, mask in written]


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
    if _is_everything(layout, own, frames):
        return [_every_tile(of_batch, patches, tile, layout.row.device) for of_batch in frames]
    tokens = _of_last_frame(layout, own)
    written = _by_place(tokens, torch.ones_like(tokens.is_leaf), frames, patches, tile)
    return [_tiles(*_wider(mask.any(dim=1), bricks, reach), tile) for bricks, mask in written]


def tokens_around(
    layout: TokenLayout, own: slice, frames: Sequence[Frames], patches: Sequence[Patch], reach: Sequence[int]
) -> Tensor:
    """Return the tokens ``(m,)`` of the last frame in the coarsest patches of the tokens ``own`` and in patches within reach.

    All patches that touch those of ``own`` count as within reach.
    """
    last = layout.is_last.nonzero(as_tuple=True)[0]
    is_own = (last >= own.start) & (last < own.stop)
    if bool(is_own.all()):
        return last
    tokens, brick = layout.select(last), patches[0]
    beside = [max(cells, 1) for cells in reach]
    found = [in_bricks(tokens, frames, patches, level) for level in range(len(patches))]
    is_near = torch.zeros_like(is_own)
    for of_batch, levels in zip(frames, zip(*found, strict=True), strict=True):
        index, number = (torch.cat(column) for column in zip(*(level[:2] for level in levels), strict=True))
        near = Bricks(of_batch, brick, number[is_own[index]].unique()).around(beside)
        is_near[index] = near.find(number)[1]
    return last[is_near]


@dataclass(frozen=True)
class Holders:
    """The ranks that hold the places of some coarsest patches of a batch: those with a rank's tokens, and those around.

    Attributes:
        bricks: these patches.
        tile: size of a tile.
        rank: ``(k, z, y, x)`` int32, the rank that holds each place, counted from 1; 0 if none does.
    """

    bricks: Bricks
    tile: Patch
    rank: Tensor


def holders(
    layout: TokenLayout, rank: Tensor, frames: Sequence[Frames], patches: Sequence[Patch], tile: Patch
) -> list[Holders]:
    """Return the holders of each batch's places, from the ``rank`` ``(n,)`` of tokens; the layout is from `tokens_around`."""
    written = _by_place(layout, (rank + 1).int() * layout.is_leaf, frames, patches, tile)
    return [Holders(bricks, tile, of_batch.amax(dim=1)) for bricks, of_batch in written]


def routes(
    layout: TokenLayout,
    rank: Tensor,
    holders: Sequence[Holders],
    me: int,
    frames: Sequence[Frames],
    patches: Sequence[Patch],
    reach: Sequence[int],
) -> list[Tensor]:
    """Find the tiles that this rank decodes and in which another rank holds cells, or the other way round.

    Args:
        layout: the layout of the last frame's tokens that may be within reach of this rank's own, see `tokens_around`.
        rank: ``(n,)``, rank of each of these tokens.
        holders: the ranks that hold the places of each batch.
        me: this rank.
        frames: the frames of each batch.
        patches: levels from coarse to fine.
        reach: number of cells along ``z, y, x`` by which a decoded patch reaches into its neighbours.

    Returns:
        One tensor ``(3, r)`` per batch, its columns in ascending order: the rank that decodes, the rank that has cells
        there, and the row of the tile; one of the ranks is ``me``.
    """
    decoders = _by_place(layout, (rank + 1).int(), frames, patches, holders[0].tile)
    return [_near(near, holder, me, reach) for (_, near), holder in zip(decoders, holders, strict=True)]


def halo_routes(holders: Sequence[Holders], me: int, reaches: Sequence[Sequence[int]]) -> list[Tensor]:
    """Find the tiles in which this rank holds cells within reach of another rank's cells, or the other way round.

    Args:
        holders: the ranks around this rank's part of each batch's frame.
        me: this rank.
        reaches: reach in cells along ``z, y, x``, for each batch; at most the size of a coarsest patch.

    Returns:
        One tensor ``(3, r)`` per batch, its columns in ascending order: the rank that holds the cells, the rank that reaches
        them, and the row of the tile.
    """
    near = [_near(each.rank[:, None], each, me, reach) for each, reach in zip(holders, reaches, strict=True)]
    return [columns[[1, 0, 2]].unique(dim=1) for columns in near]


def tiles_around(tiles: Tiles, reach: Sequence[int]) -> Tiles:
    """Return the tiles that hold cells of a part of the frame or lie within ``reach`` cells ``z, y, x`` of them."""
    return _tiles(*_wider(tiles.places, Bricks(tiles.frames, tiles.tile, tiles.row), reach), tiles.tile)


def _near(near: Tensor, holder: Holders, me: int, reach: Sequence[int]) -> Tensor:
    """Find the pairs of a rank and another one that holds cells within its reach, where one of the two is ``me``.

    Args:
        near: ``(k, level, z, y, x)``, the rank at each place of the same patches, counted from 1; 0 if there is none.
        holder: the ranks that hold the places.
        me: this rank, counted from 0.
        reach: number of cells along ``z, y, x``.

    Returns:
        Table ``(3, r)``, columns in ascending order: the rank that is near, the rank that holds, the row of the holder's tile.
    """
    bricks, held, size = holder.bricks, holder.rank[:, None], holder.rank.shape[1:]
    radius = _radius(reach, holder.rank, bricks)
    has_own = ((near == me + 1).flatten(1).any(dim=1) | (held == me + 1).flatten(1).any(dim=1)).nonzero()[:, 0]
    row = _rows(bricks, holder.tile, size)
    wide_near, wide_held, wide_row = (
        bricks.with_ring(values, radius)[has_own] for values in (near, held, row[:, None])
    )
    near, held, row = near[has_own], held[has_own], row[has_own][:, None]
    is_held, is_near = held == me + 1, near == me + 1
    num_ranks = max([me + 1, *(int(wide.max()) for wide in (wide_near, wide_held) if wide.numel())])
    num_rows = math.prod(bricks.frames.grid_of(holder.tile))
    keys = []
    for start in product(*(range(2 * r + 1) for r in radius)):
        cut = tuple(slice(first, first + length) for first, length in zip(start, size, strict=True))
        there = wide_near[:, :, *cut]
        # First the ranks that decode around places held here, then the ranks that hold places around those decoded here.
        found = (is_held & (there > 0) & (there != me + 1)).nonzero(as_tuple=True)
        place = (found[0], torch.zeros_like(found[1]), *found[2:])
        keys.append(((there[found].long() - 1) * num_ranks + me) * num_rows + row[place])
        there = wide_held[:, :, *cut]
        found = (is_near & (there > 0) & (there != me + 1)).nonzero(as_tuple=True)
        place = (found[0], torch.zeros_like(found[1]), *found[2:])
        keys.append((me * num_ranks + there[place].long() - 1) * num_rows + wide_row[:, :, *cut][place])
    of_all = torch.cat(keys).unique()
    return torch.stack(torch.unravel_index(of_all, (num_ranks, num_ranks, num_rows)))


def _wider(mask: Tensor, bricks: Bricks, reach: Sequence[int]) -> tuple[Tensor, Bricks]:
    """Add the places within reach to a mask ``(k, z, y, x)``, and return it with the boxes that hold them."""
    radius = _radius(reach, mask, bricks)
    if not any(radius):
        return mask, bricks
    wider = bricks.around(reach)
    there = mask.new_zeros(len(wider.number), *mask.shape[1:], dtype=torch.float32)
    there[wider.find(bricks.number)[0]] = mask.float()
    around = wider.with_ring(there, radius)
    return F.max_pool3d(around[:, None], [2 * r + 1 for r in radius], stride=1)[:, 0].bool(), wider


def _tiles(mask: Tensor, bricks: Bricks, tile: Patch) -> Tiles:
    """Return the tiles that hold some of the places ``(k, z, y, x)`` of a mask in some boxes."""
    counts = dict(zip(("Z", "Y", "X"), parts_along(bricks.size, tile), strict=True))
    by_tile = rearrange(mask, "k (Z z) (Y y) (X x) -> (k Z Y X) z y x", **counts)
    chosen = by_tile.flatten(1).any(dim=1).nonzero(as_tuple=True)[0]
    row, order = _rows(bricks, tile, parts_along(bricks.size, tile)).flatten()[chosen].sort()
    return Tiles(bricks.frames, tile, row, by_tile[chosen[order]])


def _rows(bricks: Bricks, tile: Patch, places: Sequence[int]) -> Tensor:
    """Return the row of each place's tile, ``(k, z, y, x)``, in boxes of ``places`` places along ``z, y, x``."""
    row, *corner = unravelled(bricks.number[:, None, None, None], bricks.grid)
    axes = zip(corner, places, parts_along(bricks.size, tile), bricks.frames.grid_of(tile)[1:], strict=True)
    for axis, (first, size, ratio, length) in enumerate(axes, start=1):
        inside = torch.arange(size, device=first.device).view([-1 if at == axis else 1 for at in range(4)])
        row = row * length + first * ratio + inside // (size // ratio)
    return row


def _of_last_frame(layout: TokenLayout, own: slice) -> TokenLayout:
    """Return the layout of the tokens among ``own`` that hold the last frame."""
    tokens = layout.select(own)
    return tokens.select(tokens.is_last.nonzero(as_tuple=True)[0])


def _by_place(
    layout: TokenLayout, value: Tensor, frames: Sequence[Frames], patches: Sequence[Patch], tile: Patch
) -> list[tuple[Bricks, Tensor]]:
    """Write a value ``(n,)`` of each token of the last frame over its patch, and zero elsewhere.

    Returns:
        The coarsest patches that hold tokens, for each batch, and the values ``(k, level, z, y, x)`` in the places of each,
        on a grid that divides the finest patch and the tile.
    """
    place = _place(patches, tile)
    found = [in_bricks(layout, frames, patches, level) for level in range(len(patches))]
    written = []
    for of_batch, levels in zip(frames, zip(*found, strict=True), strict=True):
        bricks = Bricks(of_batch, patches[0], torch.cat([brick for _, brick, *_ in levels]).unique())
        of_levels = []
        for patch, (index, brick, *inside, _) in zip(patches, levels, strict=True):
            at_level = value.new_zeros(len(bricks.number), *parts_along(patches[0], patch))
            at_level[bricks.find(brick)[0], *inside] = value[index]
            of_levels.append(to_children(at_level, patch, place))
        written.append((bricks, torch.stack(of_levels, dim=1)))
    return written


def _is_everything(layout: TokenLayout, own: slice, frames: Sequence[Frames]) -> bool:
    """Return whether all tokens are own and no patch goes beyond its grid; then no search is needed."""
    return own.stop - own.start == layout.num_tokens and all(each.covered == each.window[1:] for each in frames)


def _every_tile(frames: Frames, patches: Sequence[Patch], tile: Patch, device: torch.device) -> Tiles:
    """Return all tiles of a batch with all their places."""
    row = torch.arange(math.prod(frames.grid_of(tile)), device=device)
    shape = (len(row), *parts_along(tile, _place(patches, tile)))
    return Tiles(frames, tile, row, torch.ones(shape, dtype=torch.bool, device=device))


def _place(patches: Sequence[Patch], tile: Patch) -> Patch:
    """Return the size of a place: the largest that divides the finest patch and the tile."""
    z, y, x = (math.gcd(*sizes) for sizes in zip(patches[-1][1:], tile[1:], strict=True))
    return 1, z, y, x


def _radius(reach: Sequence[int], places: Tensor, bricks: Bricks) -> list[int]:
    """Return a reach in cells as a number of the places ``(..., z, y, x)`` of a box, rounded up."""
    return [-(-r * n // c) for r, n, c in zip(reach, places.shape[-3:], bricks.size[1:], strict=True)]
