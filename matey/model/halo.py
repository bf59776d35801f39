"""The halo exchange of predicted values: each rank receives the cells around those that it predicts itself.

In this example ranks 0 and 1 predict cells of one tile, and rank 2 holds the tile beside it. After the exchange, rank 0 has a
halo of one cell around its own cells:

      tile of ranks 0 and 1    tile of rank 2            tile of rank 0 with its halo
      0 0 1 1                  2 2 2 2                        . . . . . .
      0 0 1 1                  2 2 2 2                        . 0 0 1 . .      cells that no own cell touches
      0 0 0 0                  2 2 2 2                        . 0 0 1 1 2      (.) may hold anything
      0 0 0 0                  2 2 2 2                        . 0 0 0 0 2
                                                              . 0 0 0 0 2
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from matey.model.sequence_group import HandOver, RankGroup, SequenceGroup
from matey.tokens.bricks import Bricks
from matey.tokens.coverage import Holders, halo_routes, tiles_around
from matey.tokens.patches import unravelled
from matey.tokens.tiles import Tiles


@dataclass(frozen=True)
class HaloPlan:
    """The plan of a halo exchange for a micro-batch.

    Attributes:
        halos: number of cells ``z, y, x`` of the halo, for each batch.
        around: the tiles of each batch that hold cells of this rank or of their halo.
        hand_over: the plan by which these tiles come to this rank.
    """

    halos: tuple[tuple[int, ...], ...]
    around: tuple[Tiles, ...]
    hand_over: HandOver


def plan_halo(
    tiles: Sequence[Tiles], holders: Sequence[Holders], halos: Sequence[Sequence[int]], ranks: RankGroup
) -> HaloPlan:
    """Plan the exchange for halos of some cells ``z, y, x``, one for each batch, ahead of the step.

    Args:
        tiles: the tiles of each batch that hold cells of this rank.
        holders: the ranks that hold cells in and around these tiles; empty on one process.
        halos: number of cells of the halo.
        ranks: the group of ranks that share the samples.

    Raises:
        ValueError: ranks share the samples, and a halo is wider than a coarsest patch.
    """
    for of_batch, halo in zip(holders, halos, strict=True) if holders else ():
        _check_width(halo, of_batch.bricks.size[1:])
    around = [tiles_around(part, halo) for part, halo in zip(tiles, halos, strict=True)]
    rows = [each.row for each in around]
    plan = ranks.plan_hand_over(rows, rows, lambda: halo_routes(holders, ranks.place, halos))
    return HaloPlan(tuple(map(tuple, halos)), tuple(around), plan)


def with_halo(
    values: Sequence[Tensor], tiles: Sequence[Tiles], plan: HaloPlan, sequence_group: SequenceGroup
) -> list[Tensor]:
    """Return the tiles with the cells around them, ``(k, f, z, y, x)`` wider by the halo at both ends of each axis.

    Beyond the domain, the values of its other side follow where it wraps around, else those of its edge; a grid that patches do
    not divide evenly never wraps. Cells further than the halo from an own cell may hold anything.

    Args:
        values: tensors ``(k, f, z, y, x)``, one per batch, zero in cells that are not this rank's.
        tiles: the tiles of these values.
        plan: the plan for these tiles.
        sequence_group: the group that hands tiles over between the ranks that share the samples.
    """
    given = [
        have.new_zeros(len(around.row), *have.shape[1:]).index_copy(0, torch.searchsorted(around.row, part.row), have)
        for have, part, around in zip(values, tiles, plan.around, strict=True)
    ]
    together = sequence_group.hand_over(given, plan.hand_over)
    return [_cut(*each) for each in zip(together, plan.around, tiles, plan.halos, strict=True)]


def _check_width(halo: Sequence[int], patch: Sequence[int]) -> None:
    if any(cells > size for cells, size in zip(halo, patch, strict=True)):
        raise ValueError(
            f"Where ranks share samples, the halo of a loss may be as wide as a coarsest patch, here {list(patch)} (z y x), "
            f"got a halo of {list(halo)} cells; set larger tokens.patches."
        )


def _cut(values: Tensor, around: Tiles, tiles: Tiles, halo: Sequence[int]) -> Tensor:
    """Cut the tiles with their halo out of a larger part of the frame."""
    wide = Bricks(around.frames, around.tile, around.row).with_ring(_to_the_ends(values, around), halo)
    cut = wide.index_select(0, torch.searchsorted(around.row, tiles.row))
    # A rank without tiles must take part in the exchange of gradients too.
    return cut if len(cut) else cut + values.sum()


def _to_the_ends(values: Tensor, tiles: Tiles) -> Tensor:
    """Continue the grid's outermost values to the ends of the region that patches cover."""
    bricks = Bricks(tiles.frames, tiles.tile, tiles.row)
    for axis, (length, covered) in enumerate(zip(tiles.frames.window[1:], tiles.frames.covered, strict=True)):
        if covered > length:
            size, along = tiles.tile[1 + axis], 2 + axis
            place = unravelled(tiles.row, tiles.grid)[1 + axis]
            cells = place[:, None] * size + torch.arange(size, device=place.device)
            back = (place - (length - 1) // size).clamp_min(0) * math.prod(tiles.grid[2 + axis :])
            edge = values.narrow(along, (length - 1) % size, 1).index_select(0, bricks.find(tiles.row - back)[0])
            is_beyond = (cells >= length).view(len(place), *(size if at == along else 1 for at in range(1, 5)))
            values = torch.where(is_beyond, edge, values)
    return values
