"""The training loss: each rank scores the cells of its own tokens, and the sums are added up."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from matey.metrics import NRMSE_EPSILON
from matey.model.forecast import Forecast
from matey.model.seam import Seam


@dataclass(frozen=True)
class LossScale:
    """The NRMSE that counts as a loss of 1: a power of the lead time, in snapshots.

    Attributes:
        first: the scale at lead time 1.
        power: the exponent of the lead time; 0 where all lead times count alike.
    """

    first: float = 1.0
    power: float = 0.0

    @classmethod
    def through(cls, errors: Mapping[int, float]) -> LossScale:
        """Return the scale through the errors, above 0, at the shortest and the longest of some lead times."""
        short, long = min(errors), max(errors)
        power = math.log(errors[long] / errors[short]) / math.log(long / short) if long > short else 0.0
        return cls(errors[short] / short**power, power)

    def at(self, lead_time: Tensor) -> Tensor:
        """Return it for lead times ``(b,)``."""
        return self.first * lead_time**self.power


def nrmse_of(forecasts: Sequence[Forecast], seam: Seam) -> list[Tensor]:
    """Return the NRMSE of each sample and field, ``(b, f)``: that of `matey.metrics.nrmse`, from each rank's cells.

    Args:
        forecasts: forecasts of batches with a target.
        seam: the seam that sums over the ranks that share the samples, once for all forecasts.
    """
    targets = [forecast.batch.known_target.to(forecast.scale.dtype) for forecast in forecasts]
    own = [_squared_error(*pair) for pair in zip(forecasts, targets, strict=True)]
    summed = seam.reduce(torch.cat([errors.flatten() for errors in own])).split([errors.numel() for errors in own])
    return [
        _relative(total.view_as(errors), target) for total, errors, target in zip(summed, own, targets, strict=True)
    ]


def training_loss(forecasts: Sequence[Forecast], seam: Seam, scales: Mapping[str, LossScale]) -> tuple[Tensor, Tensor]:
    """Return the mean over the samples of a micro-batch, and the loss of each sample ``(b,)``.

    Args:
        forecasts: forecasts of the batches of a micro-batch.
        seam: the seam that sums over the ranks that share the samples.
        scales: the NRMSE that counts as a loss of 1, for each system.
    """
    errors = zip(forecasts, nrmse_of(forecasts, seam), strict=True)
    per_sample = torch.cat(
        [
            error.mean(dim=1) / scales[forecast.batch.system].at(forecast.batch.lead_time.to(error.dtype))
            for forecast, error in errors
        ]
    )
    return per_sample.mean(), per_sample.detach()


def _squared_error(forecast: Forecast, target: Tensor) -> Tensor:
    """Sum of squared errors over this rank's cells, ``(b, f)`` in physical units."""
    by_tile = forecast.errors(target).square().sum(dim=(2, 3, 4))
    # The tiles of a sample lie together; adding them up by index would differ from run to run on a GPU.
    tiles_of_samples = torch.bincount(forecast.tiles.sample, minlength=len(target)).tolist()
    by_sample = torch.stack([tiles.sum(dim=0) for tiles in by_tile.split(tiles_of_samples)])
    return by_sample * forecast.scale.square()


def _relative(squared_error: Tensor, target: Tensor) -> Tensor:
    """Return root-mean-square errors over those of zero."""
    reference = torch.linalg.vector_norm(target, dim=(2, 3, 4)) + NRMSE_EPSILON * target[0, 0].numel() ** 0.5
    error = squared_error / reference.square()
    # The root's slope is infinite at zero; an error of rounding size has none that would help.
    return error.clamp_min(torch.finfo(error.dtype).eps ** 2).sqrt()
