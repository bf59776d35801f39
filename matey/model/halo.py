"""The halo exchange of predicted values: what neighbouring tiles hold, beside the cells that this rank predicts itself.

A tile that several ranks predict cells of, and one beside it that another rank holds, look like this to rank 0, which then
has a halo of one cell around the cells that are its own:

      tile of ranks 0 and 1    tile of rank 2            tile of rank 0 with its halo
      0 0 1 1                  2 2 2 2                        . . . . . .
      0 0 1 1                  2 2 2 2                        . 0 0 1 . .      cells that no own cell touches
      0 0 0 0                  2 2 2 2                        . 0 0 1 1 2      (.) may hold anything
      0 0 0 0                  2 2 2 2                        . 0 0 0 0 2
                                                              . 0 0 0 0 2
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from matey.model.sequence_group import SequenceGroup
from matey.tokens.coverage import halo_routes, held_by, tiles_around
from matey.tokens.patches import surroundings
from matey.tokens.tiles import Tiles


def with_halo(
    values: Sequence[Tensor], tiles: Sequence[Tiles], halos: Sequence[Sequence[int]], sequence_group: SequenceGroup
) -> list[Tensor]:
    """Return the tiles with the cells around them, ``(k, f, z, y, x)`` wider by the halo at both ends of each axis.

    Beyond the domain lie the values of its other side where it wraps around, else those of its edge; around a grid that no
    patch divides nothing wraps. Cells further than the halo from an own cell may hold anything.

    Args:
        values: tensors ``(k, f, z, y, x)``, one per batch, zero in cells that are not this rank's.
        tiles: the tiles that they lie in.
        halos: number of cells ``z, y, x`` of the halo, for each batch.
        sequence_group: the group that hands tiles over between the ranks that share the samples.
    """
    wanted = [tiles_around(part, halo) for part, halo in zip(tiles, halos, strict=True)]
    given = [
        have.new_zeros(len(around.row), *have.shape[1:]).index_copy(0, torch.searchsorted(around.row, part.row), have)
        for have, part, around in zip(values, tiles, wanted, strict=True)
    ]
    holders = [held_by(part, sequence_group.ranks.place) for part in tiles]
    summed = sequence_group.reduce(torch.cat([holder.flatten() for holder in holders]))
    shared = [
        holder.view_as(own)
        for holder, own in zip(summed.split([holder.numel() for holder in holders]), holders, strict=True)
    ]
    rows = [around.row for around in wanted]
    plan = sequence_group.ranks.plan_hand_over(
        rows, rows, sequence_group.size, lambda rank: halo_routes(tiles, shared, halos)
    )
    together = sequence_group.hand_over(given, plan)
    parts = zip(together, wanted, tiles, halos, strict=True)
    return [_cut(each, around, part, halo) for each, around, part, halo in parts]


def _cut(values: Tensor, around: Tiles, tiles: Tiles, halo: Sequence[int]) -> Tensor:
    """Cut the tiles with their halo out of a larger part of the frame."""
    size, frames = tiles.tile[1:], tiles.frames
    windows = surroundings(around.put(values), size, halo, frames.wraps, tiles.in_box)
    cells = [length + 2 * more for length, more in zip(size, halo, strict=True)]
    cut = windows.view(len(windows), values.shape[1], *cells)
    # Without tiles, too, this rank takes part in the exchange of gradients.
    return cut if len(cut) else cut + values.sum()
