"""The predicted frames that the network returns, in the cells of this rank's box, and their error against the targets."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from matey.metrics import nrmse
from matey.model.boxes import HeldCells
from matey.model.one_tensor import unpacked
from matey.model.prepare import Prepared
from matey.model.route import CellRoute
from matey.model.sequence_group import SequenceGroup
from matey.samples import Samples
from matey.tokens.normalisation import Normalisation

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
        cells: the place of this rank's box, with ``k`` samples.
        halo: the route of cells in and around the box, for a loss that looks at neighbours, if it was planned ahead.
        decoded: ``(k, f, z, y, x)``, decoded values of the box, relative to the base in units of the scale.
        target: ``(k, f, z, y, x)``, the frame to predict in physical units, if there is one.
        num_tokens: number of tokens of the batch that this rank processed.
        sequence_group: group of the ranks that share the samples; it adds up their parts.
    """

    samples: Samples
    base: Tensor
    scale: Tensor
    cells: HeldCells
    halo: CellRoute | None
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
            base=normalisation.mean[held.cells.sample][..., None, None, None] if predict == "field" else held.base,
            scale=_scale(predict, normalisation, samples.lead_time),
            cells=held.cells,
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
