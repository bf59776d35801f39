"""The predicted frames that the network returns, in the cells of this rank's box, and their error against the targets.

In a rollout each rank keeps its box of the fields: what was read around it comes from the ranks beside it afterwards.

    parts of histories, with their halo --> prepared, together --> each rank predicts the cells of its box
            ^                                                                   |
            '---- newest frames with their halo <----- borders of boxes, swapped
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from matey.fields import BatchPart, Piece, Samples
from matey.metrics import nrmse
from matey.model.boxes import Cut, Held, HeldCells
from matey.model.configuration import MateyConfig
from matey.model.modules import unpacked
from matey.model.prepare import Prepared
from matey.model.sequence_group import CellRoute, Exchange, RankGroup, SequenceGroup, swapped
from matey.tokens.normalisation import Normalisation

SMALLEST_UNIT = 2.0**-20
"""Smallest unit of errors: in that of a field that was zero, the squares of errors of 100 would add up beyond float32."""


class Forecast(NamedTuple):
    """The predicted frame of one `FieldBatch`: base + scale x decoded; NaN in cells that hold no data.

    It is a tuple because DeepSpeed looks for tensors in tuples, lists and dicts only. Without any it misses the backward pass,
    and counts gradients of all but the last micro-batch more than once (bfloat16 with stage 1, `overlap_comm`).

    Attributes:
        samples: description of the samples.
        base: ``(k, f, z, y, x)``, values to which the decoded values are added, in physical units: the last frame when the
            change is predicted, else the mean, one value for all cells.
        scale: ``(b, f)``, the factor on the decoded values, in physical units.
        deviation: ``(b, f)``, the deviation of the history.
        cells: the place of this rank's box, with ``k`` samples.
        halo: the route of cells in and around the box, for a loss that looks at neighbours, if it was planned ahead.
        decoded: ``(k, f, z, y, x)``, decoded values of the box, relative to the base in units of the scale.
        target: ``(k, f, z, y, x)``, the frame to predict in physical units, if there is one.
        has_gaps: whether some cells of the box hold no data.
        num_tokens: number of tokens of the batch that this rank processed.
        sequence_group: group of the ranks that share the samples; it adds up their parts.
    """

    samples: Samples
    base: Tensor
    scale: Tensor
    deviation: Tensor
    cells: HeldCells
    halo: CellRoute | None
    decoded: Tensor
    target: Tensor | None
    has_gaps: bool
    num_tokens: int
    sequence_group: SequenceGroup

    @property
    def known_target(self) -> Tensor:
        """The target.

        Raises:
            ValueError: the batch has no target.
        """
        if self.target is None:
            raise ValueError(f"A batch of {self.samples.system} has no target, and so no loss; give it one.")
        return self.target

    @property
    def unit(self) -> Tensor:
        """Unit ``(b, f)`` in which errors can be squared: the scale, unless it is close to zero, as that of a field at rest."""
        return self.scale.clamp_min(SMALLEST_UNIT)

    def errors(self) -> Tensor:
        """Return prediction minus target in this rank's box, ``(k, f, z, y, x)`` in units of `unit`."""
        lacking = (self.base - self.known_target.to(self.scale.dtype)) / self.of_box(self.unit)
        return torch.addcmul(lacking, self.decoded.to(lacking.dtype), self.of_box(self.scale / self.unit))

    def frame(self) -> Tensor:
        """Return the decoded values as a frame ``(b, f, z, y, x)``, zero in cells that this rank does not predict."""
        return self.cells.put(self.decoded)

    def field(self) -> Tensor:
        """Return the predicted frame, ``(b, f, z, y, x)`` in physical units, from the cells of all ranks that share it."""
        return self._together(self.values)

    @property
    def values(self) -> Tensor:
        """The predicted values in this rank's box, ``(k, f, z, y, x)`` in physical units."""
        return self.base + self.of_box(self.scale) * self.decoded.to(self.scale.dtype)

    def _together(self, values: Tensor) -> Tensor:
        """Return the boxes ``(k, f, z, y, x)`` of all ranks as one frame."""
        return self.sequence_group.reduce(self.cells.put(values))

    def of_box(self, values: Tensor) -> Tensor:
        """Return values of samples ``(b, f)`` for those of this rank's box, ``(k, f, 1, 1, 1)``."""
        return values[self.cells.sample][..., None, None, None]

    @property
    def error(self) -> Tensor:
        """The NRMSE of each sample and field, ``(b, f)``."""
        return nrmse(self.field(), self._together(self.known_target))


def forecasts_of(prepared: Prepared, decoded: Tensor, predict: str, sequence_group: SequenceGroup) -> Forecasts:
    """Return the forecasts of a micro-batch.

    Args:
        prepared: the micro-batch.
        decoded: decoded values of all its batches, one after the other, each ``(k, f, z, y, x)``, see `Forecast`.
        predict: quantity that the model predicts, as `MateyConfig` names it.
        sequence_group: group of the ranks that share the samples; it adds up their parts.
    """
    shapes = [tuple(held.base.shape) for held in prepared.held]
    return Forecasts(
        Forecast(
            samples=samples,
            base=_mean(normalisation, held) if predict == "field" else held.base,
            scale=_scale(predict, normalisation, samples.lead_time),
            deviation=normalisation.std,
            cells=held.cells,
            halo=halo,
            decoded=values,
            target=held.target,
            has_gaps=held.has_gaps,
            num_tokens=num_tokens,
            sequence_group=sequence_group,
        )
        for samples, normalisation, held, halo, values, num_tokens in zip(
            prepared.samples,
            prepared.normalisations,
            prepared.held,
            prepared.halos or [None] * len(shapes),
            unpacked(decoded, shapes),
            prepared.num_of_batches,
            strict=True,
        )
    )


def _mean(normalisation: Normalisation, held: Held) -> Tensor:
    """Return the mean ``(k, f, 1, 1, 1)`` of each sample, or in each cell where some hold no data."""
    mean = normalisation.mean[held.cells.sample][..., None, None, None]
    return held.base.where(held.base.isnan(), mean) if held.has_gaps else mean


def _scale(predict: str, normalisation: Normalisation, lead_time: Tensor) -> Tensor:
    """Return the unit of the decoded values, ``(b, f)``."""
    if predict == "rate":
        return normalisation.change * lead_time[:, None].to(normalisation.change.dtype)
    return normalisation.std


class Forecasts(list[Forecast]):
    """The forecasts of a micro-batch, one for each `FieldBatch`."""

    @property
    def loss(self) -> Tensor:
        """The NRMSE, mean over fields and samples, against the targets, which all batches must have."""
        return torch.cat([each.error.mean(dim=1) for each in self]).mean()


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
        surrounded(forecast.values.to("cpu", part.samples.dtype), part.samples, config, ranks, exchange)
        for forecast, part in zip(forecasts, parts, strict=True)
    ]


def surrounded(values: Tensor, about: Samples, config: MateyConfig, ranks: RankGroup, exchange: Exchange) -> Frames:
    """Return values ``(..., z, y, x)`` in and around this rank's box, for each of its samples."""
    cuts = [Cut.of_rank(about, config, rank, ranks.size) for rank in range(ranks.size)]
    seen = [[span.index() for span in cut.spans] for cut in cuts]
    route = CellRoute.planned([cut.box for cut in cuts], seen, ranks.place)
    return list(route.of(values, partial(swapped, exchange=exchange)))
