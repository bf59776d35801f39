"""The training losses, each an object with a name: each rank scores the cells of its box, and the sums of ranks are added up.

A loss is a relative error: the root of a sum over the cells of the prediction's error, over the same root for the target. It
defines the terms of the sum, and the number of cells around a cell that a term depends on:

      cells of a rank's box, which are summed      . . . . . .
      and a halo of 1: the predictions of          . # # # # .
      the ranks that hold the boxes around         . # # # # .
                                                   . # # # # .
                                                   . . . . . .

A field whose mean dwarfs its deviation, such as a temperature in kelvin, would have next to no share in the mean over the
fields. Its errors count relative to its deviation, see `LossScale`.

A target that has come to rest is measured by a share of the deviation of its history, `matey.metrics.REST`. Cells that hold
no data, those where the target is NaN, do not count.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from matey.config import ConfigError
from matey.fields import FieldBatch
from matey.metrics import CELLS, NRMSE_EPSILON, REST, vrmse_of_sums
from matey.model.forecast import Forecast
from matey.model.nested import with_tensors
from matey.model.sequence_group import SequenceGroup
from matey.tokens.normalisation import normalisation_of
from matey.tokens.patches import extend


class Loss(ABC):
    """A relative error of each sample and field.

    Attributes:
        halo: number of cells around a cell that `squares` looks at, along each axis of the grid with more than one cell.
        balanced: whether the error is divided by the mean error of persistence on the system at the lead time.
    """

    halo: int = 0
    balanced: bool = False

    @abstractmethod
    def squares(self, values: Tensor, axes: Sequence[int]) -> Tensor:
        """Return the terms that are summed over the cells; they are quadratic in the values.

        Args:
            values: ``(k, f, z, y, x)``, an error or a target with a halo at both ends of each of ``axes``.
            axes: the axes that have a halo, a subset of 2, 3, 4 for z, y, x.

        Returns:
            The squares ``(k, f, z, y, x)``, without the halo.
        """

    def sum_of(self, fields: Tensor, wraps: Sequence[bool]) -> Tensor:
        """Return the sum ``(b, f)`` over whole fields ``(b, f, z, y, x)``, continued periodically or by their edge values."""
        halo = halo_of(self.halo, fields.shape[2:])
        ends = [size + more for size, more in zip(fields.shape[2:], halo, strict=True)]
        return self.squares(extend(fields, ends, wraps, before=halo), axes_of(halo)).sum(dim=CELLS)

    def relative(self, of_error: Tensor, of_target: Tensor, num_cells: int, deviation: Tensor) -> Tensor:
        """Return the relative error ``(b, f)``: the root of the error's sum over the root of the target's.

        Args:
            of_error: sum over the cells of the error's squares ``(b, f)``.
            of_target: sum of the target's.
            num_cells: number of cells.
            deviation: deviation of the history ``(b, f)``, which measures a target at rest.
        """
        root = num_cells**0.5
        reference = of_target.sqrt().maximum(REST * root * deviation.to(of_target.dtype)) + NRMSE_EPSILON * root
        error = of_error / reference.square()
        return error.clamp_min(torch.finfo(error.dtype).tiny ** 0.5).sqrt()  # the root's slope is infinite at zero

    def of_frame(self, prediction: Tensor, batch: FieldBatch) -> Tensor:
        """Return the error ``(b, f)`` of a whole predicted frame ``(b, f, z, y, x)``."""
        target, deviation = batch.known_target, normalisation_of(batch.history).std
        of_error, of_target = (self.sum_of(fields, batch.periodic) for fields in (prediction - target, target))
        return self.relative(of_error, of_target, math.prod(batch.grid), deviation)


@dataclass(frozen=True)
class Nrmse(Loss):
    """The root mean square error over the root mean square of the target, `matey.metrics.nrmse`."""

    balanced: bool = False

    def squares(self, values: Tensor, axes: Sequence[int]) -> Tensor:
        """Square the values."""
        return values.square()


@dataclass(frozen=True)
class Gradient(Loss):
    """The error of values and gradients together, relative to the target's: a Sobolev norm.

    Central differences give weight to errors of one cell's width, which count for NRMSE no more than broad ones.

    Attributes:
        length: number of cells over which a gradient counts as much as the values.
        balanced: whether the error is divided by the mean error of persistence.
    """

    length: float = 4.0
    balanced: bool = False
    halo = 1

    def squares(self, values: Tensor, axes: Sequence[int]) -> Tensor:
        """Square the values and, times the length, their central differences along each axis."""
        total = shifted(values, axes, self.halo).square()
        for axis in axes:
            ahead, behind = (shifted(values, axes, self.halo, axis, step) for step in (1, -1))
            total = total + (self.length / 2 * (ahead - behind)).square()
        return total


NRMSE = Nrmse()
BALANCED = Nrmse(balanced=True)
GRADIENT = Gradient()


def shifted(values: Tensor, axes: Sequence[int], halo: int, along: int = 2, step: int = 0) -> Tensor:
    """Return the values without their halo, or the values ``step`` cells further along an axis of ``axes``."""
    for axis in axes:
        start = halo + (step if axis == along else 0)
        values = values.narrow(axis, start, values.shape[axis] - 2 * halo)
    return values


def halo_of(cells: int, grid: Sequence[int]) -> tuple[int, ...]:
    """Return the halo along ``z, y, x``: none where the grid has one cell, and so no neighbours."""
    return tuple(cells if size > 1 else 0 for size in grid)


def axes_of(halo: Sequence[int]) -> list[int]:
    """Return the axes of ``(k, f, z, y, x)`` that have a halo."""
    return [axis for axis, reach in enumerate(halo, start=2) if reach]


@dataclass(frozen=True)
class LossScale:
    """The error of a system that counts as a loss of 1: a power of the lead time, in snapshots.

    Attributes:
        first: the scale at lead time 1.
        power: the exponent of the lead time; 0 where all lead times count alike.
        weights: weights of fields by name, size over deviation where the mean dwarfs it; those of all others are 1.
    """

    first: float = 1.0
    power: float = 0.0
    weights: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def through(cls, errors: Mapping[int, float], weights: Mapping[str, float]) -> LossScale:
        """Return the scale that equals the errors, above 0, at the shortest and the longest lead time."""
        short, long = min(errors), max(errors)
        power = math.log(errors[long] / errors[short]) / math.log(long / short) if long > short else 0.0
        return cls(errors[short] / short**power, power, weights)

    def loss(self, errors: Tensor, lead_time: Tensor, fields: Sequence[str] = ()) -> Tensor:
        """Return the losses ``(b,)`` of relative errors ``(b, f)`` of named fields at lead times ``(b,)``."""
        if self.weights:  # as numbers, which need no copy to the device
            of_fields = zip(fields, errors.unbind(dim=1), strict=True)
            errors = torch.stack([self.weights.get(name, 1.0) * error for name, error in of_fields], dim=1)
        return errors.mean(dim=1) / (self.first * lead_time**self.power)


DWARFED = 10.0, 1e6
"""Sizes over deviations between which a field is weighted by them; float32 does not resolve smaller deviations."""


def weight_of(size: float, deviation: float) -> float:
    """Return the weight of a field of a root mean square and a standard deviation, see `LossScale`.

    >>> weight_of(280.0, 10.0), weight_of(1.0, 1.0), weight_of(3.0, 0.0)
    (28.0, 1.0, 1.0)
    """
    low, high = DWARFED
    return size / deviation if low * deviation < size < high * deviation else 1.0


def errors_of(forecasts: Sequence[Forecast], sequence_group: SequenceGroup, loss: Loss = NRMSE) -> list[Tensor]:
    """Return the relative error of each sample and field, ``(b, f)``, from each rank's cells.

    Args:
        forecasts: forecasts of batches with a target.
        sequence_group: the group that sums over the ranks that share the samples, once for all forecasts.
        loss: the error; by default the NRMSE, that of `matey.metrics.nrmse`.

    Raises:
        ConfigError: some cells hold no data, and the loss looks at neighbouring cells.
    """
    if loss.halo and (gaps := [forecast.samples.system for forecast in forecasts if forecast.has_gaps]):
        raise ConfigError(
            f"train.loss looks at neighbouring cells, and some cells of {gaps[0]} hold no data (NaN); take the loss nrmse, or "
            "leave this data out."
        )
    halos = [halo_of(loss.halo, forecast.cells.frames.window[1:]) for forecast in forecasts]
    values = [_errors_and_target(forecast) for forecast in forecasts]
    if loss.halo:
        values = [_and_around(*each, sequence_group) for each in zip(forecasts, values, halos, strict=True)]
    own = [_own_sum(loss, *each) for each in zip(forecasts, values, halos, strict=True)]
    summed = sequence_group.reduce(torch.cat([sums.flatten() for sums in own])).split([sums.numel() for sums in own])
    found = []
    for total, sums, forecast in zip(summed, own, forecasts, strict=True):
        of_error, of_target = total.view_as(sums).chunk(2, dim=1)
        square = forecast.unit.square()
        num_cells = math.prod(forecast.cells.frames.window[1:])
        found.append(loss.relative(of_error * square, of_target * square, num_cells, forecast.deviation))
    return found


def vrmse_of(forecasts: Sequence[Forecast], sequence_group: SequenceGroup) -> list[Tensor]:
    """Return `matey.metrics.vrmse` of each sample and field, ``(b, f)`` in float64, from each rank's cells, as `errors_of`."""
    own = []
    for forecast in forecasts:
        error, target = _errors_and_target(forecast).double().chunk(2, dim=1)
        holds_data = ~forecast.known_target.isnan()
        sums = torch.cat([error.square(), target.square(), target, holds_data.double()], dim=1).sum(dim=CELLS)
        own.append(_of_samples(forecast, sums))
    summed = sequence_group.reduce(torch.cat([sums.flatten() for sums in own])).split([sums.numel() for sums in own])
    found = []
    for total, sums, forecast in zip(summed, own, forecasts, strict=True):
        of_error, of_target, plain, num_cells = total.view_as(sums).chunk(4, dim=1)
        square = forecast.unit.double().square()
        deviation = (of_target - plain.square() / num_cells).clamp_min(0)  # of float32 values, summed in float64
        known = forecast.deviation.double().square() * num_cells
        found.append(vrmse_of_sums(of_error * square, of_target * square, deviation * square, num_cells, known))
    return found


def _errors_and_target(forecast: Forecast) -> Tensor:
    """Return errors and target in this rank's cells ``(k, 2 f, z, y, x)``, in units of `unit`; 0 in cells without data."""
    unit = forecast.of_box(forecast.unit)
    target = forecast.known_target.to(unit.dtype) / unit
    found = torch.cat([forecast.errors(), target], dim=1)
    return found.masked_fill(target.isnan().repeat(1, 2, 1, 1, 1), 0) if forecast.has_gaps else found


def _and_around(forecast: Forecast, values: Tensor, halo: Sequence[int], sequence_group: SequenceGroup) -> Tensor:
    """Return values in a rank's box and in a halo around it, from those in the boxes of all ranks."""
    route, sizes = forecast.halo, [size + 2 * far for size, far in zip(values.shape[2:], halo, strict=True)]
    if route is None or list(route.shape[1:]) != sizes:
        planned = forecast.cells.around(halo, sequence_group.ranks)
        route = with_tensors(planned, lambda tensor: tensor.to(values.device))
    return route.of(values, sequence_group.exchange_tokens)


def training_loss(
    forecasts: Sequence[Forecast],
    sequence_group: SequenceGroup,
    scales: Mapping[str, LossScale],
    loss: Loss = NRMSE,
    lead_times: Sequence[Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the mean over the samples of a micro-batch, and the loss of each sample ``(b,)``.

    Args:
        forecasts: forecasts of the batches of a micro-batch.
        sequence_group: the group that sums over the ranks that share the samples.
        scales: what counts as a loss of 1, for each system.
        loss: the error of a forecast.
        lead_times: lead times ``(b,)`` of each batch as it was read, where the model has rolled its history out since: what
            counts as a loss of 1 is the error over all of that time. None: those of the forecasts.
    """
    if lead_times is None:
        lead_times = [forecast.samples.lead_time for forecast in forecasts]
    errors = zip(forecasts, errors_of(forecasts, sequence_group, loss), lead_times, strict=True)
    per_sample = torch.cat(
        [
            scales[forecast.samples.system].loss(
                error, lead_time.to(error.device, error.dtype), forecast.samples.fields
            )
            for forecast, error, lead_time in errors
        ]
    )
    return per_sample.mean(), per_sample.detach()


def _own_sum(loss: Loss, forecast: Forecast, values: Tensor, halo: Sequence[int]) -> Tensor:
    """Sum over this rank's cells, ``(b, f)`` in squares of the forecast's `unit`."""
    return _of_samples(forecast, loss.squares(values, axes_of(halo)).sum(dim=CELLS))


def _of_samples(forecast: Forecast, of_box: Tensor) -> Tensor:
    """Return sums ``(k, n)`` over this rank's cells for all samples ``(b, n)``."""
    whole = of_box.new_zeros(forecast.samples.number, of_box.shape[1])
    whole[forecast.cells.sample] = of_box
    return whole
