"""Which cells of the predicted frame some tokens stand for, and which tokens decode those cells."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange, reduce, repeat
from torch import Tensor

from matey.tokens.layout import TokenLayout
from matey.tokens.patches import Patch, cover, extend, pad, patch_grid, places, unpatchify
from matey.tokens.refinement import to_children


@dataclass(frozen=True)
class Frames:
    """The frames of one group of samples.

    Attributes:
        num_samples: ``b``.
        window: ``t, z, y, x`` of the history.
        periodic: whether the domain wraps around along ``z, y, x``.
    """

    num_samples: int
    window: tuple[int, int, int, int]
    periodic: tuple[bool, bool, bool]


@dataclass(frozen=True)
class Part:
    """The cells of the predicted frame of one group of samples that some tokens stand for.

    Attributes:
        frames: of the group.
        tile: the coarsest patch with one frame, ``(1, z, y, x)``: the part is kept in whole tiles.
        row: ``(k,)``, ascending, the rows in ``patchify(frame, tile)`` of the tiles that hold some of the cells.
        own: ``(k, z, y, x)`` of bool, the cells of the tiles that are among them.
    """

    frames: Frames
    tile: Patch
    row: Tensor
    own: Tensor

    @property
    def covered(self) -> tuple[int, int, int]:
        """Size ``z, y, x`` of what tiles cover, at least the grid."""
        return cover((1, *self.frames.window[1:]), self.tile)[1:]

    @property
    def wraps(self) -> tuple[bool, ...]:
        """Whether what tiles cover goes on at its other end, along ``z, y, x``: around a padded domain nothing does."""
        return _wraps(self.frames, self.covered)

    @property
    def sample(self) -> Tensor:
        """Sample of each tile, ``(k,)``."""
        return self.row // math.prod(patch_grid((1, *self.covered), self.tile))

    def cut(self, fields: Tensor) -> Tensor:
        """Cut the tiles ``(k, f, z, y, x)`` out of fields ``(b, f, z, y, x)``; beyond the grid they are zero."""
        place, (samples, *box) = places(self.row, (len(fields), *patch_grid((1, *self.covered), self.tile)[1:]))
        around = [slice(side.start * size, side.stop * size) for side, size in zip(box, self.tile[1:], strict=True)]
        fields = pad(fields[samples, :, *around], [side.stop - side.start for side in around])
        sizes = dict(zip(("z", "y", "x"), self.tile[1:], strict=True))
        return rearrange(fields, "b f (Z z) (Y y) (X x) -> b Z Y X f z y x", **sizes)[*place]

    def own_of(self, tiles: Tensor) -> Tensor:
        """Return tiles ``(k, f, z, y, x)``, zero in cells that are not own."""
        return tiles.where(self.own[:, None], 0)

    def put(self, tiles: Tensor) -> Tensor:
        """Put tiles ``(k, f, z, y, x)`` where they belong in ``(b, f, z, y, x)``, zero in cells that are not own."""
        grid = patch_grid((1, *self.covered), self.tile)
        rows = tiles.new_zeros(self.frames.num_samples * math.prod(grid), *tiles.shape[1:])
        rows = rows.index_copy(0, self.row, self.own_of(tiles))
        _, z, y, x = self.frames.window
        return unpatchify(rows[:, :, None], grid)[:, 0, :, :z, :y, :x]


def parts_of(layout: TokenLayout, own: slice, frames: Sequence[Frames], patches: Sequence[Patch]) -> list[Part]:
    """Return per group the cells of the grid that lie in leaves among the tokens ``own``."""
    tile, finest = (1, *patches[0][1:]), dict(zip(("z", "y", "x"), patches[-1][1:], strict=True))
    ratio = {f"r{axis}": size // finest[axis] for axis, size in zip("zyx", tile[1:], strict=True)}
    parts = []
    for mask, group in zip(_finest_patches(layout, own, frames, patches), frames, strict=True):
        tiles = rearrange(mask, "b (Z rz) (Y ry) (X rx) -> b Z Y X rz ry rx", **ratio)
        shape, tiles = tiles.shape[:4], tiles.flatten(0, 3)
        row = tiles.flatten(1).any(dim=1).nonzero(as_tuple=True)[0]
        cells = repeat(tiles[row], "k rz ry rx -> k (rz z) (ry y) (rx x)", **finest)
        z, y, x = (
            first[:, None] * size + torch.arange(size, device=row.device) < length
            for first, size, length in zip(torch.unravel_index(row, shape)[1:], tile[1:], group.window[1:], strict=True)
        )
        inside = z[:, :, None, None] & y[:, None, :, None] & x[:, None, None, :]
        parts.append(Part(group, tile, row, cells & inside))
    return parts


def tokens_to_decode(
    layout: TokenLayout, own: slice, frames: Sequence[Frames], patches: Sequence[Patch], reach: Sequence[int]
) -> Tensor:
    """Return the numbers, ascending, of the tokens of the last frame that bear on the cells of the leaves among ``own``.

    Args:
        layout: of all tokens.
        own: tokens of one rank.
        frames: of every group.
        patches: levels from coarse to fine.
        reach: cells ``z, y, x`` that a decoded patch reaches into its neighbours.
    """
    wanted = torch.zeros_like(layout.is_last)
    for number, (mask, group) in enumerate(zip(_finest_patches(layout, own, frames, patches), frames, strict=True)):
        mask = _dilated(mask, group, patches, reach)
        for level, patch in enumerate(patches):
            rz, ry, rx = (c // f for c, f in zip(patch[1:], patches[-1][1:], strict=True))
            there = reduce(mask.float(), "b (Z rz) (Y ry) (X rx) -> (b Z Y X)", "max", rz=rz, ry=ry, rx=rx).bool()
            index = _last_of(layout, number, level)
            wanted[index] = there[_place(layout, index, group, patch)]
    return wanted.nonzero(as_tuple=True)[0]


def _finest_patches(
    layout: TokenLayout, own: slice, frames: Sequence[Frames], patches: Sequence[Patch]
) -> list[Tensor]:
    """Return per group ``(b, Z, Y, X)`` of bool on the grid of the finest patches: those in leaves among ``own``."""
    is_own = torch.zeros_like(layout.is_leaf)
    is_own[own] = layout.is_leaf[own]
    masks = []
    for number, group in enumerate(frames):
        covered = cover(group.window, patches[0])
        mask = torch.zeros((), dtype=torch.bool, device=is_own.device)
        for level, patch in enumerate(patches):
            _, Z, Y, X = patch_grid(covered, patch)
            at_level = torch.zeros(group.num_samples * Z * Y * X, dtype=torch.bool, device=is_own.device)
            index = _last_of(layout, number, level)
            at_level[_place(layout, index[is_own[index]], group, patch)] = True
            mask = mask | to_children(at_level.view(group.num_samples, Z, Y, X), patch, patches[-1])
        masks.append(mask)
    return masks


def _last_of(layout: TokenLayout, group: int, level: int) -> Tensor:
    return (layout.is_last & (layout.level == level) & (layout.group == group)).nonzero(as_tuple=True)[0]


def _place(layout: TokenLayout, index: Tensor, group: Frames, patch: Patch) -> Tensor:
    """Return the row of each token's patch among those of a single frame."""
    return layout.row[index] // (group.window[0] // patch[0])


def _dilated(mask: Tensor, group: Frames, patches: Sequence[Patch], reach: Sequence[int]) -> Tensor:
    """Grow a mask ``(b, Z, Y, X)`` of finest patches by the patches that reach into it."""
    radius = [-(-cells // size) for cells, size in zip(reach, patches[-1][1:], strict=True)]
    if not any(radius):
        return mask
    covered = cover(group.window, patches[0])
    wraps = _wraps(group, covered[1:])
    around = extend(mask.float(), [s + r for s, r in zip(mask.shape[1:], radius, strict=True)], wraps, before=radius)
    return F.max_pool3d(around[:, None], [2 * r + 1 for r in radius], stride=1)[:, 0].bool()


def _wraps(group: Frames, covered: Sequence[int]) -> tuple[bool, ...]:
    return tuple(w and size == c for w, size, c in zip(group.periodic, group.window[1:], covered, strict=True))
