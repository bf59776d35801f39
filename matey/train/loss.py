"""The training loss: each rank scores the cells of its box, and the sums of ranks are added up."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from matey.model.forecast import Forecast
from matey.model.sequence_group import SequenceGroup
from matey.nested import with_tensors
from matey.train.losses import NRMSE, Loss, axes_of, halo_of


@dataclass(frozen=True)
class LossScale:
    """The error that counts as a loss of 1: a power of the lead time, in snapshots.

    Attributes:
        first: the scale at lead time 1.
        power: the exponent of the lead time; 0 where all lead times count alike.
    """

    first: float = 1.0
    power: float = 0.0

    @classmethod
    def through(cls, errors: Mapping[int, float]) -> LossScale:
        """Return the scale that equals the errors, above 0, at the shortest and the longest lead time."""
        short, long = min(errors), max(errors)
        power = math.log(errors[long] / errors[short]) / math.log(long / short) if long > short else 0.0
        return cls(errors[short] / short**power, power)

    def at(self, lead_time: Tensor) -> Tensor:
        """Return the scale for lead times ``(b,)``."""
        return self.first * lead_time**self.power


def errors_of(forecasts: Sequence[Forecast], sequence_group: SequenceGroup, loss: Loss = NRMSE) -> list[Tensor]:
    """Return the relative error of each sample and field, ``(b, f)``, from each rank's cells.

    Args:
        forecasts: forecasts of batches with a target.
        sequence_group: the group that sums over the ranks that share the samples, once for all forecasts.
        loss: the error; by default the NRMSE, that of `matey.metrics.nrmse`.
    """
    halos = [halo_of(loss.halo, forecast.cells.frames.window[1:]) for forecast in forecasts]
    values = [torch.cat([forecast.errors(), _target_of(forecast)], dim=1) for forecast in forecasts]
    if loss.halo:
        values = [_and_around(*each, sequence_group) for each in zip(forecasts, values, halos, strict=True)]
    own = [_own_sum(loss, *each) for each in zip(forecasts, values, halos, strict=True)]
    summed = sequence_group.reduce(torch.cat([sums.flatten() for sums in own])).split([sums.numel() for sums in own])
    found = []
    for total, sums, forecast in zip(summed, own, forecasts, strict=True):
        of_error, of_target = total.view_as(sums).chunk(2, dim=1)
        square = forecast.unit.square()
        found.append(loss.relative(of_error * square, of_target * square, math.prod(forecast.cells.frames.window[1:])))
    return found


def _target_of(forecast: Forecast) -> Tensor:
    """Return the target in this rank's cells, in units of the forecast's `unit`."""
    unit = forecast.of_box(forecast.unit)
    return forecast.known_target.to(unit.dtype) / unit


def _and_around(forecast: Forecast, values: Tensor, halo: Sequence[int], sequence_group: SequenceGroup) -> Tensor:
    """Return values in a rank's box and in a halo around it, from those in the boxes of all ranks."""
    route, sizes = forecast.halo, [size + 2 * far for size, far in zip(values.shape[2:], halo, strict=True)]
    if route is None or list(route.shape[1:]) != sizes:
        planned = forecast.cells.around(halo, sequence_group.ranks)
        route = with_tensors(planned, lambda tensor: tensor.to(values.device))
    return route.of(values, sequence_group.exchange_tokens)


def training_loss(
    forecasts: Sequence[Forecast], sequence_group: SequenceGroup, scales: Mapping[str, LossScale], loss: Loss = NRMSE
) -> tuple[Tensor, Tensor]:
    """Return the mean over the samples of a micro-batch, and the loss of each sample ``(b,)``.

    Args:
        forecasts: forecasts of the batches of a micro-batch.
        sequence_group: the group that sums over the ranks that share the samples.
        scales: the error that counts as a loss of 1, for each system.
        loss: the error of a forecast.
    """
    errors = zip(forecasts, errors_of(forecasts, sequence_group, loss), strict=True)
    per_sample = torch.cat(
        [
            error.mean(dim=1) / scales[forecast.samples.system].at(forecast.samples.lead_time.to(error.dtype))
            for forecast, error in errors
        ]
    )
    return per_sample.mean(), per_sample.detach()


def _own_sum(loss: Loss, forecast: Forecast, values: Tensor, halo: Sequence[int]) -> Tensor:
    """Sum over this rank's cells, ``(b, f)`` in squares of the forecast's `unit`."""
    of_box = loss.squares(values, axes_of(halo)).sum(dim=(2, 3, 4))
    whole = of_box.new_zeros(forecast.samples.number, of_box.shape[1])
    whole[forecast.cells.sample] = of_box
    return whole
