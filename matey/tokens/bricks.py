"""Some of the boxes of one size that make up a frame, with values kept box by box and continued into the boxes around.

Most of a field belongs to other ranks. A rank looks at the coarsest patches (the bricks) that hold its tokens, and at those
around them, whatever their common shape:

      . . . . . .          . . + + + +
      . . . 0 0 0          + + + 0 0 0      0: bricks with tokens of rank 0
      0 0 . . . .          0 0 + + + +      +: bricks within reach
      . . . . . .          + + + . . .
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from matey.tokens.layout import TokenLayout
from matey.tokens.patches import Patch, parts_along, unravelled
from matey.tokens.tiles import Frames


@dataclass(frozen=True)
class Bricks:
    """Some boxes of a batch's frame.

    Attributes:
        frames: the frames of the batch.
        size: size ``t, z, y, x`` of a box; only its spatial extent counts, which divides the covered cells.
        number: ``(k,)``, numbers of the boxes along ``b Z Y X``, ascending.
    """

    frames: Frames
    size: Patch
    number: Tensor

    @property
    def grid(self) -> tuple[int, int, int, int]:
        """Number of samples, and of all boxes along ``z, y, x``."""
        return self.frames.grid_of(self.size)

    def find(self, number: Tensor) -> tuple[Tensor, Tensor]:
        """Return the index among these of each box number ``(m,)``, 0 if it is missing, and whether it is there."""
        if not len(self.number):
            return torch.zeros_like(number), torch.zeros_like(number, dtype=torch.bool)
        place = torch.searchsorted(self.number, number).clamp_max_(len(self.number) - 1)
        is_there = self.number[place] == number
        return place.where(is_there, 0), is_there

    def around(self, reach: Sequence[int]) -> Bricks:
        """Return these boxes and those within ``reach`` cells ``z, y, x``."""
        if len(self.number) == math.prod(self.grid):
            return self
        found = self
        for axis, (cells, size) in enumerate(zip(reach, self.size[1:], strict=True)):
            steps = -(-cells // size)
            if steps:
                numbers = [found._beside(axis, step)[0] for step in range(-steps, steps + 1)]
                found = replace(found, number=torch.cat(numbers).unique())
        return found

    def with_ring(self, values: Tensor, radius: Sequence[int]) -> Tensor:
        """Extend the values in each box by those of the boxes around, axis after axis.

        Beyond the covered cells, a periodic axis continues with its other side, any other with its outermost values. Values in
        boxes that are not among these, and behind such boxes, are zero.

        Args:
            values: ``(k, ..., z, y, x)``, the values in each box, by cells or by places of any size.
            radius: number of cells or places ``z, y, x`` to add at both ends of each axis.
        """
        for axis, reach in enumerate(radius):
            if reach:
                values = torch.cat(list(self._pieces(values, axis, reach)), dim=values.ndim - 3 + axis)
        return values

    def _pieces(self, values: Tensor, axis: int, reach: int) -> Iterator[Tensor]:
        """Yield the pieces along an axis from ``reach`` before the boxes to ``reach`` behind them."""
        along, like = values.ndim - 3 + axis, (-1, *[1] * (values.ndim - 1))
        size = values.shape[along]
        steps = -(-reach // size)
        for step in range(-steps, steps + 1):
            if step == 0:
                yield values
                continue
            number, is_beyond = self._beside(axis, step)
            place, is_there = self.find(number)
            length = min(size, reach - (abs(step) - 1) * size)
            first = size - length if step < 0 else 0
            piece = values.narrow(along, first, length).index_select(0, place)
            if not self.frames.wraps[axis]:
                edge = values.narrow(along, 0 if step < 0 else size - 1, 1).index_select(0, place)
                piece = torch.where(is_beyond.view(like), edge, piece)
            yield piece.masked_fill(~is_there.view(like), 0)

    def _beside(self, axis: int, step: int) -> tuple[Tensor, Tensor]:
        """Return the boxes ``(k,)`` that lie ``step`` boxes further along an axis, and whether they lie beyond the domain.

        For those beyond the domain, the outermost boxes are returned.
        """
        _, *places = unravelled(self.number, self.grid)
        number, place = self.grid[1 + axis], places[axis] + step
        inner = math.prod(self.grid[2 + axis :])
        if self.frames.wraps[axis]:
            there = place % number
            return self.number + (there - places[axis]) * inner, torch.zeros_like(place, dtype=torch.bool)
        there = place.clamp(0, number - 1)
        return self.number + (there - places[axis]) * inner, there != place


def in_bricks(
    layout: TokenLayout, frames: Sequence[Frames], patches: Sequence[Patch], level: int
) -> list[tuple[Tensor, ...]]:
    """Return, for each batch, the tokens of a level, the brick of each, and its position ``Z Y X T`` in that brick."""
    patch, found = patches[level], []
    of_level = (layout.level == level).nonzero(as_tuple=True)[0]
    for of_batch, index in zip(frames, by_batch(of_level, layout, len(frames)), strict=True):
        times = of_batch.window[0] // patch[0]
        brick, *places, time = unravelled(layout.row[index].long(), (*of_batch.grid_of(patch), times))
        ratio = parts_along(patches[0], patch)
        for place, size, r in zip(places, of_batch.grid_of(patches[0])[1:], ratio, strict=True):
            brick = brick * size + place // r
        found.append((index, brick, *(place % r for place, r in zip(places, ratio, strict=True)), time))
    return found


def by_batch(index: Tensor, layout: TokenLayout, num_batches: int) -> list[Tensor]:
    """Split token indices by batch; tokens are packed batch after batch."""
    counts = torch.bincount(layout.select(index).batch, minlength=num_batches)
    return list(index.split(counts.tolist()))
