"""The predicted frames that the network returns, in the cells that this rank decoded, and their error against the targets."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from matey.metrics import nrmse
from matey.model.boxes import HeldCells, PreparedBoxes
from matey.model.halo import HaloPlan
from matey.model.one_tensor import unpacked
from matey.model.prepare import Prepared
from matey.model.route import CellRoute
from matey.model.sequence_group import SequenceGroup
from matey.samples import Samples
from matey.tokens.coverage import Holders
from matey.tokens.normalisation import Normalisation
from matey.tokens.tiles import Tiles

SMALLEST_UNIT = 2.0**-20
"""Smallest unit of errors: in that of a field that was zero, the squares of errors of 100 would add up beyond float32."""


class Forecast(NamedTuple):
    """The predicted frame of one `FieldBatch`: base + scale x decoded.

    It is a tuple because DeepSpeed looks for tensors in tuples, lists and dicts only. Without any it misses the backward pass,
    and counts gradients of all but the last micro-batch more than once (bfloat16 with stage 1, `overlap_comm`).

    Attributes:
        samples: description of the samples.
        base: ``(k, f, z, y, x)``, values to which the decoded values are added, in physical units: the last frame when the
            change is predicted, else the mean, one value for all cells.
        scale: ``(b, f)``, the factor on the decoded values, in physical units.
        tiles: the ``k`` tiles that hold cells of this rank.
        own: mask ``(k, z, y, x)`` of the cells in the tiles that this rank predicts.
        holders: the ranks that hold cells in and around the tiles; None on one process.
        halo: the plan of the micro-batch's halo exchange, or of this batch's, if it was planned ahead.
        decoded: ``(k, f, z, y, x)``, decoded values relative to the base in units of the scale; valid in own cells
            only.
        target: ``(k, f, z, y, x)``, the frame to predict in physical units, if there is one.
        num_tokens: number of tokens of the batch that this rank processed.
        sequence_group: group of the ranks that share the samples; it adds up their parts.
    """

    samples: Samples
    base: Tensor
    scale: Tensor
    tiles: Tiles | HeldCells
    own: Tensor
    holders: Holders | None
    halo: HaloPlan | CellRoute | None
    decoded: Tensor
    target: Tensor | None
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
        """Return prediction minus target in this rank's cells.

        The shape is ``(k, f, z, y, x)``, in units of `unit`; all other cells are zero.
        """
        lacking = (self.base - self.known_target.to(self.scale.dtype)) / self.of_tiles(self.unit)
        factor = self.of_tiles(self.scale / self.unit)
        return torch.addcmul(lacking, self.decoded.to(lacking.dtype), factor).where(self.own[:, None], 0)

    def frame(self) -> Tensor:
        """Return the decoded values as a frame ``(b, f, z, y, x)``, zero in cells that this rank does not predict."""
        return self.tiles.put(self.decoded.where(self.own[:, None], 0))

    def field(self) -> Tensor:
        """Return the predicted frame, ``(b, f, z, y, x)`` in physical units, from the cells of all ranks that share it."""
        return self._together(self.values)

    @property
    def values(self) -> Tensor:
        """The predicted values in the tiles, ``(k, f, z, y, x)`` in physical units; valid in own cells only."""
        return self.base + self.of_tiles(self.scale) * self.decoded.to(self.scale.dtype)

    def _together(self, values: Tensor) -> Tensor:
        """Return tiles ``(k, f, z, y, x)`` of all ranks as one frame."""
        return self.sequence_group.reduce(self.tiles.put(values.where(self.own[:, None], 0)))

    def of_tiles(self, values: Tensor) -> Tensor:
        """Return values of samples ``(b, f)`` for each tile, ``(k, f, 1, 1, 1)``."""
        return values[self.tiles.sample][..., None, None, None]

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
    decoding = prepared.decoding
    shapes = [
        (len(own), len(rows.predicted), *own.shape[1:]) for own, rows in zip(decoding.own, prepared.rows, strict=True)
    ]
    return Forecasts(
        Forecast(
            samples=samples,
            base=normalisation.mean[tiles.sample][..., None, None, None] if predict == "field" else seen.base,
            scale=_scale(predict, normalisation, samples.lead_time),
            tiles=tiles,
            own=own,
            holders=holders,
            halo=decoding.halo,
            decoded=values,
            target=seen.target,
            num_tokens=num_tokens,
            sequence_group=sequence_group,
        )
        for samples, seen, normalisation, tiles, own, holders, values, num_tokens in zip(
            prepared.samples,
            prepared.seen,
            prepared.normalisations,
            decoding.held,
            decoding.own,
            decoding.holders or [None] * len(decoding.own),
            unpacked(decoded, shapes),
            prepared.tokens.num_of_batches,
            strict=True,
        )
    )


def forecasts_of_boxes(
    prepared: PreparedBoxes, decoded: Tensor, predict: str, sequence_group: SequenceGroup
) -> Forecasts:
    """Return the forecasts of a micro-batch from the decoded values of this rank's boxes, see `forecasts_of`."""
    shapes = [tuple(held.base.shape) for held in prepared.held]
    return Forecasts(
        Forecast(
            samples=samples,
            base=normalisation.mean[held.cells.sample][..., None, None, None] if predict == "field" else held.base,
            scale=_scale(predict, normalisation, samples.lead_time),
            tiles=held.cells,
            own=torch.ones_like(held.base[:, 0], dtype=torch.bool),
            holders=None,
            halo=halo,
            decoded=values,
            target=held.target,
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
