"""The patches that a rank's tokens stand for, and their bricks: the coarsest patches, by which fields are moved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from matey.tokens.bricks import in_bricks
from matey.tokens.layout import TokenLayout
from matey.tokens.patches import Patch, parts_along
from matey.tokens.tiles import Frames


@dataclass(frozen=True)
class OwnTokens:
    """This rank's ``n`` tokens, in the order of the packed list.

    Attributes:
        layout: the layout of the tokens.
        patches: rows ``(m,)`` int32 of the tokens' patches in ``patchify`` of the histories that this rank sees, for each level
            and batch.
        order: ``(n,)`` int32, place of each token in the list that is embedded level by level.
        num_of_batches: number of tokens of each batch.
    """

    layout: TokenLayout
    patches: tuple[tuple[Tensor, ...], ...]
    order: Tensor
    num_of_batches: tuple[int, ...]


def bricks_of(layout: TokenLayout, frames: Sequence[Frames], patches: Sequence[Patch]) -> list[Tensor]:
    """Return the coarsest patches that hold tokens, ``(k,)`` for each batch, ascending; numbered along ``b Z Y X``."""
    of_levels = [
        [torch.unique(brick) for _, brick, *_ in in_bricks(layout, frames, patches, level)]
        for level in range(len(patches))
    ]
    return [torch.unique(torch.cat(of_batch)) for of_batch in zip(*of_levels, strict=True)]


def own_tokens(
    layout: TokenLayout, frames: Sequence[Frames], patches: Sequence[Patch], bricks: Sequence[Tensor | None]
) -> OwnTokens:
    """Return this rank's tokens from their layout.

    Args:
        layout: the layout of this rank's tokens.
        frames: the frames of each batch.
        patches: levels from coarse to fine.
        bricks: bricks ``(k,)`` of each batch that the rank sees; None where it sees whole samples.
    """
    of_levels, order = [], []
    for level, patch in enumerate(patches):
        ratio = parts_along(patches[0], patch)
        rows = []
        for of_batch, there, (index, brick, *places) in zip(
            frames, bricks, in_bricks(layout, frames, patches, level), strict=True
        ):
            order.append(index)
            row = layout.row[index]
            if there is not None:
                row = torch.searchsorted(there, brick)
                for place, size in zip(places, (*ratio, of_batch.window[0] // patch[0]), strict=True):
                    row = row * size + place
            rows.append(row.to(layout.row.dtype))
        of_levels.append(tuple(rows))
    return OwnTokens(
        layout=layout,
        patches=tuple(of_levels),
        order=torch.cat(order).argsort().to(torch.int32),
        num_of_batches=tuple(torch.bincount(layout.batch, minlength=len(frames)).tolist()),
    )
