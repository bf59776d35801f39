"""The part of the predicted frame that a rank holds, in tiles that are cut out of fields and put back.

Decoded values are kept and sent between ranks in tiles. A tile is the smallest box that the blocks of every level divide.
Where patches are smaller than a tile, several ranks may hold cells of it, so a tile is divided into places:

      patches of two levels          tiles over them            one tile and its places
      +-----------+-----+-----+      +---+---+---+---+---+---+
      |           |     |     |      |   |   |   |   |   |   |      +---+---+
      |           +-----+-----+      +---+---+---+---+---+---+      | A | A |     A: held by this rank
      |           |     |     |      |   |   |   |   |   |   |      +---+---+     b: held by another
      +-----------+-----+-----+      +---+---+---+---+---+---+      | A | b |
                                                                    +---+---+
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import torch
from einops import rearrange, repeat
from torch import Tensor

from matey.tokens.patches import Patch, Places, pad, patch_grid, places, unpatchify


@dataclass(frozen=True)
class Frames:
    """The frames of one batch.

    Attributes:
        num_samples: number of samples ``b``.
        window: size ``t, z, y, x`` of the history.
        periodic: whether the domain wraps around along ``z, y, x``.
        covered: size ``z, y, x`` that the coarsest patches cover, at least that of the grid.
    """

    num_samples: int
    window: tuple[int, int, int, int]
    periodic: tuple[bool, bool, bool]
    covered: tuple[int, int, int]

    @property
    def wraps(self) -> tuple[bool, ...]:
        """Whether the covered cells wrap around along ``z, y, x``; a padded axis does not."""
        return tuple(w and s == c for w, s, c in zip(self.periodic, self.window[1:], self.covered, strict=True))

    def grid_of(self, patch: Patch) -> tuple[int, int, int, int]:
        """Return the number of samples, and of patches of a given size along ``z, y, x``."""
        return self.num_samples, *patch_grid((1, *self.covered), (1, *patch[1:]))[1:]


@dataclass(frozen=True)
class Tiles:
    """A part of the predicted frame of one batch.

    Attributes:
        frames: the frames of the batch that the tiles are cut from.
        tile: size of a tile with one frame, ``(1, z, y, x)``; it divides the size that the patches cover.
        row: ``(k,)``, row of each tile in ``patchify(frame, tile)`` of the padded frame, ascending.
        places: mask ``(k, Z, Y, X)`` of the places in each tile whose cells belong to the part; a tile is divided into
            places, boxes of cells of equal size.
        in_box: places of the tiles in the smallest box around them.
        of_samples: number of tiles of each sample.
    """

    frames: Frames
    tile: Patch
    row: Tensor
    places: Tensor
    in_box: Places = field(init=False)
    of_samples: tuple[int, ...] = field(init=False)

    def __post_init__(self) -> None:
        """Compute the attributes that need a look at the rows once, when the tiles are made."""
        object.__setattr__(self, "in_box", places(self.row, self.grid))
        counts = torch.bincount(self.sample, minlength=self.frames.num_samples)
        object.__setattr__(self, "of_samples", tuple(counts.tolist()))

    @property
    def grid(self) -> tuple[int, int, int, int]:
        """Number of samples, and of tiles along ``z, y, x``."""
        return self.frames.grid_of(self.tile)

    @property
    def sample(self) -> Tensor:
        """Sample of each tile, ``(k,)``."""
        return self.row // math.prod(self.grid[1:])

    def select(self, index: Tensor) -> Tiles:
        """Return some of the tiles, by their indices ``(m,)`` in ascending order."""
        return replace(self, row=self.row[index], places=self.places[index])

    def in_patches(self, patch: Patch) -> Tensor:
        """Return the number along ``b Z Y X`` of the coarsest patch that each tile lies in, ``(k,)``."""
        number, *places = torch.unravel_index(self.row, self.grid)
        sizes = zip(places, self.frames.covered, self.tile[1:], patch[1:], strict=True)
        for place, covered, size, cells in sizes:
            number = number * (covered // cells) + place * size // cells
        return number

    def cut(self, fields: Tensor) -> Tensor:
        """Cut the tiles ``(k, f, z, y, x)`` out of fields ``(b, f, z, y, x)``; beyond the grid they are zero."""
        samples, *box = self.box
        return self.place(fields[samples, :, *box])

    @property
    def box(self) -> tuple[slice, slice, slice, slice]:
        """The smallest box around the tiles: samples, then cells ``z, y, x`` of the grid; it may be empty."""
        samples, *sides = self.in_box.box
        z, y, x = (
            slice(min(side.start * size, length), min(side.stop * size, length))
            for side, size, length in zip(sides, self.tile[1:], self.frames.window[1:], strict=True)
        )
        return samples, z, y, x

    def place(self, values: Tensor) -> Tensor:
        """Cut the tiles ``(k, f, z, y, x)`` out of the values in `box`, ``(b, f, z, y, x)``; they are zero beyond the grid."""
        _, *sides = self.in_box.box
        values = pad(values, [(side.stop - side.start) * size for side, size in zip(sides, self.tile[1:], strict=True)])
        tiles = rearrange(values, "b f (Z z) (Y y) (X x) -> b Z Y X f z y x", **_sizes(self.tile))
        # Tiles that fill their box are in order, and copying them as they are is faster than by index.
        return tiles.flatten(0, 3) if len(self.row) == math.prod(tiles.shape[:4]) else tiles[*self.in_box.inside]

    def cells(self) -> Tensor:
        """Return the mask ``(k, z, y, x)`` of the cells that lie in one of the places and inside the grid."""
        sizes = {a: size // n for a, size, n in zip("zyx", self.tile[1:], self.places.shape[1:], strict=True)}
        cells = repeat(self.places, "k rz ry rx -> k (rz z) (ry y) (rx x)", **sizes)
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


def _sizes(patch: Patch) -> dict[str, int]:
    return dict(zip(("z", "y", "x"), patch[1:], strict=True))
