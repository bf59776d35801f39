"""Which cells of the predicted frame some tokens stand for, and which cells what they decode reaches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor

from matey.tokens.layout import TokenLayout
from matey.tokens.patches import Patch, extend, pad, patch_grid, places, unpatchify
from matey.tokens.refinement import to_children


@dataclass(frozen=True)
class Frames:
    """The frames of one group of samples.

    Attributes:
        num_samples: ``b``.
        window: ``t, z, y, x`` of the history.
        periodic: whether the domain wraps around along ``z, y, x``.
        covered: size ``z, y, x`` of what the coarsest patches cover, at least the grid.
    """

    num_samples: int
    window: tuple[int, int, int, int]
    periodic: tuple[bool, bool, bool]
    covered: tuple[int, int, int]

    @property
    def wraps(self) -> tuple[bool, ...]:
        """Whether what patches cover goes on at its other end, along ``z, y, x``: around a padded domain nothing does."""
        return tuple(w and s == c for w, s, c in zip(self.periodic, self.window[1:], self.covered, strict=True))


@dataclass(frozen=True)
class Tiles:
    """A part of the predicted frame of one group of samples.

    Attributes:
        frames: of the group.
        tile: size of a tile with one frame, ``(1, z, y, x)``; it divides what the patches cover.
        row: ``(k,)``, ascending, the rows of the tiles in ``patchify(frame, tile)`` of what the patches cover.
        finest: ``(k, z, y, x)`` of bool, which of the finest patches in each tile belong to the part.
    """

    frames: Frames
    tile: Patch
    row: Tensor
    finest: Tensor

    @property
    def grid(self) -> tuple[int, int, int, int]:
        """Number of samples, and of tiles along ``z, y, x``."""
        return (self.frames.num_samples, *patch_grid((1, *self.frames.covered), self.tile)[1:])

    @property
    def sample(self) -> Tensor:
        """Sample of each tile, ``(k,)``."""
        return self.row // math.prod(self.grid[1:])

    def cut(self, fields: Tensor) -> Tensor:
        """Cut the tiles ``(k, f, z, y, x)`` out of fields ``(b, f, z, y, x)``; beyond the grid they are zero."""
        place, (samples, *box) = self._places
        around = [slice(side.start * size, side.stop * size) for side, size in zip(box, self.tile[1:], strict=True)]
        fields = pad(fields[samples, :, *around], [side.stop - side.start for side in around])
        tiles = rearrange(fields, "b f (Z z) (Y y) (X x) -> b Z Y X f z y x", **_sizes(self.tile))
        # All of a box are in order, and copying them as they are is faster than by index.
        return tiles.flatten(0, 3) if len(self.row) == math.prod(tiles.shape[:4]) else tiles[*place]

    @cached_property
    def _places(self) -> tuple[list[Tensor], list[slice]]:
        return places(self.row, self.grid)

    def cells(self) -> Tensor:
        """Return which cells ``(k, z, y, x)`` of the tiles lie in the finest patches of the part, and in the grid."""
        sizes = {a: size // n for a, size, n in zip("zyx", self.tile[1:], self.finest.shape[1:], strict=True)}
        cells = repeat(self.finest, "k rz ry rx -> k (rz z) (ry y) (rx x)", **sizes)
        if self.frames.covered == self.frames.window[1:]:
            return cells
        z, y, x = (
            first[:, None] * size + torch.arange(size, device=first.device) < length
            for first, size, length in zip(
                torch.unravel_index(self.row, self.grid)[1:], self.tile[1:], self.frames.window[1:], strict=True
            )
        )
        return cells & z[:, :, None, None] & y[:, None, :, None] & x[:, None, None, :]

    def put(self, values: Tensor) -> Tensor:
        """Put the tiles' values ``(k, f, z, y, x)`` where they belong in ``(b, f, z, y, x)``, zero elsewhere."""
        rows = values.new_zeros(math.prod(self.grid), *values.shape[1:]).index_copy(0, self.row, values)
        _, z, y, x = self.frames.window
        return unpatchify(rows[:, :, None], (1, *self.grid[1:]))[:, 0, :, :z, :y, :x]


def tiles_of(
    layout: TokenLayout, own: slice, frames: Sequence[Frames], patches: Sequence[Patch], tile: Patch
) -> list[Tiles]:
    """Return per group the tiles that hold leaves among the tokens ``own``. The finest patch divides a tile."""
    masks = _finest_patches(layout, own, frames, patches, leaves_only=True)
    return [_tiles(mask, group, patches, tile) for mask, group in zip(masks, frames, strict=True)]


def tiles_reached(
    layout: TokenLayout,
    own: slice,
    frames: Sequence[Frames],
    patches: Sequence[Patch],
    reach: Sequence[int],
    tile: Patch,
) -> list[Tiles]:
    """Return per group the tiles that what the tokens ``own`` decode reaches.

    Args:
        layout: of all tokens.
        own: tokens of one rank; those of the last frame are decoded, whether their patches are split or not.
        frames: of every group.
        patches: levels from coarse to fine.
        reach: cells ``z, y, x`` that a decoded patch reaches into its neighbours.
        tile: size of a tile; the finest patch divides it.
    """
    masks = _finest_patches(layout, own, frames, patches, leaves_only=False)
    return [
        _tiles(_dilated(mask, group, patches, reach), group, patches, tile)
        for mask, group in zip(masks, frames, strict=True)
    ]


def _tiles(mask: Tensor, frames: Frames, patches: Sequence[Patch], tile: Patch) -> Tiles:
    """Return the tiles that hold some of the finest patches ``(b, Z, Y, X)``."""
    ratio = {axis: size // finest for axis, size, finest in zip("zyx", tile[1:], patches[-1][1:], strict=True)}
    by_tile = rearrange(mask, "b (Z z) (Y y) (X x) -> (b Z Y X) z y x", **ratio)
    row = by_tile.flatten(1).any(dim=1).nonzero(as_tuple=True)[0]
    return Tiles(frames, tile, row, by_tile[row])


def _finest_patches(
    layout: TokenLayout, own: slice, frames: Sequence[Frames], patches: Sequence[Patch], *, leaves_only: bool
) -> list[Tensor]:
    """Return per group ``(b, Z, Y, X)`` of bool on the grid of the finest patches: those in patches of last tokens ``own``."""
    counts = torch.zeros_like(layout.is_last)
    counts[own] = (layout.is_last & layout.is_leaf if leaves_only else layout.is_last)[own]
    masks = []
    for number, group in enumerate(frames):
        mask = torch.zeros((), dtype=torch.bool, device=counts.device)
        for level, patch in enumerate(patches):
            _, Z, Y, X = patch_grid((1, *group.covered), (1, *patch[1:]))
            at_level = torch.zeros(group.num_samples * Z * Y * X, dtype=torch.bool, device=counts.device)
            index = counts & (layout.level == level) & (layout.group == number)
            at_level[layout.row[index] // (group.window[0] // patch[0])] = True
            mask = mask | to_children(at_level.view(group.num_samples, Z, Y, X), patch, patches[-1])
        masks.append(mask)
    return masks


def _dilated(mask: Tensor, frames: Frames, patches: Sequence[Patch], reach: Sequence[int]) -> Tensor:
    """Grow a mask ``(b, Z, Y, X)`` of finest patches by those that it reaches into."""
    radius = [-(-cells // size) for cells, size in zip(reach, patches[-1][1:], strict=True)]
    if not any(radius):
        return mask
    ends = [size + more for size, more in zip(mask.shape[1:], radius, strict=True)]
    around = extend(mask.float(), ends, frames.wraps, before=radius)
    return F.max_pool3d(around[:, None], [2 * r + 1 for r in radius], stride=1)[:, 0].bool()


def _sizes(patch: Patch) -> dict[str, int]:
    return dict(zip(("z", "y", "x"), patch[1:], strict=True))
