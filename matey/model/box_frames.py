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

from matey.model.as_held import as_held
from matey.model.boxes import Cut
from matey.model.configuration import MateyConfig
from matey.model.forecast import Forecast
from matey.model.next_frames import Frames, boxes_of_ranks, continued, inside, predicted
from matey.model.route import CellRoute, swapped
from matey.model.sequence_group import Exchange, RankGroup
from matey.samples import BatchPart, Box, Samples


def hold(parts: list[BatchPart], config: MateyConfig, ranks: RankGroup, exchange: Exchange) -> None:
    """Note in a rank's parts which cells it holds, as long as it rolls them out; all ranks of the group call together."""
    if config.network != "cycle":
        return as_held(parts, config.patches[0], ranks, exchange)
    for number, part in enumerate(parts):
        own = Cut.of(part.samples, config, ranks).own_cells
        parts[number] = replace(part, pieces=tuple(replace(piece, own=own) for piece in part.pieces))
    return None


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
    if config.network != "cycle":
        return predicted(forecasts, parts, config.patches[0], ranks, exchange)
    return [
        _around(forecast.values.to("cpu", part.samples.dtype), part.samples, config, ranks, exchange)
        for forecast, part in zip(forecasts, parts, strict=True)
    ]


def surrounded(own: Frames, part: BatchPart, config: MateyConfig, ranks: RankGroup, exchange: Exchange) -> Frames:
    """Return frames ``(t, f, z, y, x)`` in the box of each piece, from those in the cells that ranks hold, see `inside`."""
    if config.network != "cycle":
        frames = [
            piece.history.new_empty(len(of), *piece.history.shape[1:])
            for piece, of in zip(part.pieces, own, strict=True)
        ]
        for piece, values, new in zip(part.pieces, frames, own, strict=True):
            inside(piece, values, part.samples).copy_(new)
        (boxes,) = boxes_of_ranks([part.samples], config.patches[0], ranks.size)
        return continued(frames, part, boxes, ranks, exchange)
    about = part.samples
    none = [side.stop - side.start for side in Cut.of(about, config, ranks).box.cells]
    values = torch.stack(own) if own else torch.empty(0, len(about.fields), *none, dtype=about.dtype)
    return _around(values, about, config, ranks, exchange)


def boxes_held(samples: Samples, config: MateyConfig, num_ranks: int) -> list[list[Box]]:
    """Return the boxes of a batch inside the domain that each rank holds."""
    if config.network != "cycle":
        (of_ranks,) = boxes_of_ranks([samples], config.patches[0], num_ranks)
        return [[(sample, _within(cells, samples.window[1:])) for sample, cells in own] for own in of_ranks]
    boxes = [Cut.of_rank(samples, config, rank, num_ranks).box for rank in range(num_ranks)]
    return [[(sample, box.cells) for sample in range(box.samples.start, box.samples.stop)] for box in boxes]


def _around(values: Tensor, about: Samples, config: MateyConfig, ranks: RankGroup, exchange: Exchange) -> Frames:
    """Return values ``(..., z, y, x)`` in and around this rank's box, for each of its samples."""
    cuts = [Cut.of_rank(about, config, rank, ranks.size) for rank in range(ranks.size)]
    seen = [[span.index() for span in cut.spans] for cut in cuts]
    route = CellRoute.planned([cut.box for cut in cuts], seen, ranks.place)
    return list(route.of(values, partial(swapped, exchange=exchange)))


def _within(cells: Sequence[slice], grid: Sequence[int]) -> tuple[slice, slice, slice]:
    """Return the part of a box inside the domain."""
    z, y, x = (slice(side.start, min(side.stop, length)) for side, length in zip(cells, grid, strict=True))
    return z, y, x
