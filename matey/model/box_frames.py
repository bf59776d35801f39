"""Rollouts in which each rank holds a box of the fields: what was read around it comes from the ranks beside it afterwards.

parts of histories, with their halo --> prepared, together --> each rank predicts the cells of its box
        ^                                                                   |
        '---- newest frames with their halo <----- borders of boxes, swapped
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from matey.model.boxes import Cut
from matey.model.configuration import MateyConfig
from matey.model.forecast import Forecast
from matey.model.route import CellRoute, swapped
from matey.model.sequence_group import Exchange, RankGroup
from matey.samples import BatchPart, Box, Piece, Samples

Frames = list[Tensor]
"""Values ``(..., z, y, x)`` in the box of each piece of a part."""


def hold(parts: list[BatchPart], config: MateyConfig, ranks: RankGroup) -> None:
    """Note in a rank's parts which cells it holds, as long as it rolls them out."""
    for number, part in enumerate(parts):
        own = Cut.of(part.samples, config, ranks).own_cells
        parts[number] = replace(part, pieces=tuple(replace(piece, own=own) for piece in part.pieces))


def moved_on(part: BatchPart, frames: Sequence[Tensor], num_new: int) -> BatchPart:
    """Return a part ``num_new`` snapshots later.

    Args:
        part: the part.
        frames: frames ``(t, f, z, y, x)`` that follow, or the newest of them, in the box of each piece.
        num_new: number of snapshots.
    """
    first = num_new if part.num_given > 1 else 0
    later = (
        replace(
            piece,
            history=torch.cat([piece.history, new])[-len(piece.history) :],
            given=None if piece.given is None else piece.given[first:],
        )
        for piece, new in zip(part.pieces, frames, strict=True)
    )
    return replace(part, pieces=tuple(later), num_given=part.num_given - first)


def inside(piece: Piece, values: Tensor) -> Tensor:
    """Return the values ``(..., z, y, x)`` in the cells of a piece that the rank holds, see `hold`."""
    assert piece.own is not None, "a piece whose own cells are not noted"
    z, y, x = piece.own
    return values[..., z, y, x]


def next_frames(
    forecasts: Sequence[Forecast],
    parts: Sequence[BatchPart],
    config: MateyConfig,
    ranks: RankGroup,
    exchange: Exchange,
) -> list[Frames]:
    """Return the predicted frame ``(f, z, y, x)`` in the box of each piece, on the host; all ranks of the group call together.

    Args:
        forecasts: forecasts of the micro-batch.
        parts: this rank's part of each batch, see `hold`.
        config: the configuration of the model.
        ranks: the group of ranks that share the samples.
        exchange: exchange between the ranks.
    """
    return [
        _around(forecast.values.to("cpu", part.samples.dtype), part.samples, config, ranks, exchange)
        for forecast, part in zip(forecasts, parts, strict=True)
    ]


def surrounded(own: Frames, part: BatchPart, config: MateyConfig, ranks: RankGroup, exchange: Exchange) -> Frames:
    """Return frames ``(t, f, z, y, x)`` in the box of each piece, from those in the cells that ranks hold, see `inside`."""
    about = part.samples
    none = [side.stop - side.start for side in Cut.of(about, config, ranks).box.cells]
    values = torch.stack(own) if own else torch.empty(0, len(about.fields), *none, dtype=about.dtype)
    return _around(values, about, config, ranks, exchange)


def boxes_held(samples: Samples, config: MateyConfig, num_ranks: int) -> list[list[Box]]:
    """Return the boxes of a batch inside the domain that each rank holds."""
    boxes = [Cut.of_rank(samples, config, rank, num_ranks).box for rank in range(num_ranks)]
    return [[(sample, box.cells) for sample in range(box.samples.start, box.samples.stop)] for box in boxes]


def _around(values: Tensor, about: Samples, config: MateyConfig, ranks: RankGroup, exchange: Exchange) -> Frames:
    """Return values ``(..., z, y, x)`` in and around this rank's box, for each of its samples."""
    cuts = [Cut.of_rank(about, config, rank, ranks.size) for rank in range(ranks.size)]
    seen = [[span.index() for span in cut.spans] for cut in cuts]
    route = CellRoute.planned([cut.box for cut in cuts], seen, ranks.place)
    return list(route.of(values, partial(swapped, exchange=exchange)))
