"""Boxes that fit a rank's share of a field closely, so that few cells are computed in vain.

A share is a run of coarsest patches, so that one box around it may be the whole field:

      . . . . . .          . . . . . .
      . . . 0 0 0          . . .|1 1 1|     one box of 24 patches, or three of 3 + 6 + 2 with their margins
      0 0 0 0 0 0         |2 2 2 2 2 2|
      0 0 . . . .         |3 3|. . . .
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from matey.tokens.patches import Patch
from matey.tokens.tiles import Tiles

MARGIN = 2
"""Cells on each side of a box that count as computed with it."""

WORTH = 1 / 10
"""Share of all cells that a cut has to save, since every box costs calls as well."""


@dataclass(frozen=True)
class TilesInBoxes:
    """Tiles of a batch, divided among boxes that hold little else.

    Attributes:
        boxes: the tiles of each box.
        order: ``(k,)``, index of each tile among those of all boxes; None if they are in order.
    """

    boxes: tuple[Tiles, ...]
    order: Tensor | None

    @classmethod
    def dealt(cls, tiles: Tiles, brick: Patch) -> TilesInBoxes:
        """Divide tiles among boxes of coarsest patches."""
        if len(tiles.row) == math.prod(side.stop - side.start for side in tiles.in_box.box):
            return cls((tiles,), None)
        box = in_boxes(tiles.in_patches(brick), tiles.frames.grid_of(brick), brick)
        parts = [(box == number).nonzero(as_tuple=True)[0] for number in range(int(box.max()) + 1)]
        return cls(tuple(tiles.select(part) for part in parts), torch.cat(parts).argsort())

    def together(self, values: Sequence[Tensor]) -> Tensor:
        """Return the values ``(k, ...)`` in the order of the tiles, from the values of each box."""
        return values[0] if self.order is None else torch.cat([*values]).index_select(0, self.order)


def in_boxes(patch: Tensor, grid: Sequence[int], size: Patch) -> Tensor:
    """Divide things that lie in some patches among boxes, cut after cut, as long as that saves cells.

    Args:
        patch: ``(k,)``, number of the patch of each thing, along ``b Z Y X``.
        grid: number of samples, and of patches along ``z, y, x``.
        size: size ``t, z, y, x`` of a patch.

    Returns:
        The number ``(k,)`` of the box of each thing, from 0.
    """
    numbers, of_thing = patch.unique(return_inverse=True)
    place = torch.stack(torch.unravel_index(numbers, tuple(grid)), dim=1)
    cells = size[1:]
    worth = WORTH * len(place) * math.prod(cells)
    waiting, box, num_boxes = [torch.arange(len(place), device=place.device)], torch.zeros_like(numbers), 0
    while waiting:
        patches = waiting.pop()
        is_low = _best_cut(place[patches], cells, worth)
        if is_low is None:
            box[patches] = num_boxes
            num_boxes += 1
        else:
            waiting += [patches[~is_low], patches[is_low]]
    return box[of_thing]


def _best_cut(place: Tensor, cells: Sequence[int], worth: float) -> Tensor | None:
    """Return the mask of the patches on the lower side of the cut that saves most; None if no cut is worth it."""
    if not len(place):
        return None
    low, high = place.amin(dim=0), place.amax(dim=0)
    if len(place) == math.prod((high - low + 1).tolist()):
        return None
    most, best = _cost(low, high, cells) - worth, None
    for axis, length in enumerate((high - low + 1).tolist()):
        if length > 1:
            below, above = _ends_of_sides(place, axis, length)
            of_both = _cost(*below, cells) + _cost(*above, cells)
            cut = int(of_both.argmin())
            if of_both[cut] < most:
                most, best = of_both[cut], place[:, axis] <= low[axis] + cut
    return best


def _ends_of_sides(place: Tensor, axis: int, length: int) -> list[tuple[Tensor, Tensor]]:
    """Return the ends ``(length - 1, 4)`` of the boxes on the lower and on the upper side of each cut along an axis."""
    layer = (place[:, axis] - place[:, axis].amin())[:, None].expand_as(place)
    nowhere = torch.iinfo(place.dtype)
    low = place.new_full((length, 4), nowhere.max).scatter_reduce(0, layer, place, "amin")
    high = place.new_full((length, 4), nowhere.min).scatter_reduce(0, layer, place, "amax")
    below = low.cummin(dim=0).values[:-1], high.cummax(dim=0).values[:-1]
    above = low.flip(0).cummin(dim=0).values.flip(0)[1:], high.flip(0).cummax(dim=0).values.flip(0)[1:]
    return [below, above]


def _cost(low: Tensor, high: Tensor, cells: Sequence[int]) -> Tensor:
    """Return the number of cells ``(...)`` computed for boxes from patch ``low`` to ``high``, both ``(..., 4)``."""
    samples, *sides = (high - low + 1).unbind(-1)
    for side, size in zip(sides, cells, strict=True):
        samples = samples * (side * size + (2 * MARGIN if size > 1 else 0))
    return samples
