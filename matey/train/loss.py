"""The training loss: each rank scores the cells of its own tokens, and the sums are added up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from matey.evaluate.metrics import NRMSE_EPSILON
from matey.model.forecast import Forecast
from matey.model.seam import Seam


def nrmse_of(forecast: Forecast, seam: Seam) -> Tensor:
    """Return the NRMSE of each sample and field, ``(b, f)``: that of `matey.evaluate.metrics.nrmse`, from each rank's cells.

    Args:
        forecast: of a batch with a target.
        seam: sums over the ranks that share the samples.
    """
    target = forecast.batch.target.to(forecast.scale.dtype)
    reference = torch.linalg.vector_norm(target, dim=(2, 3, 4)) + NRMSE_EPSILON * target[0, 0].numel() ** 0.5
    error = seam.reduce(_squared_error(forecast, target)) / reference.square()
    # The root's slope is infinite at zero; an error of rounding size has none that would help.
    return error.clamp_min(torch.finfo(error.dtype).eps ** 2).sqrt()


def training_loss(forecasts: Sequence[Forecast], seam: Seam, scales: Mapping[str, float]) -> tuple[Tensor, Tensor]:
    """Return the mean over the samples of a micro-batch, and the loss of each sample ``(b,)``.

    Args:
        forecasts: of the batches of a micro-batch.
        seam: sums over the ranks that share the samples.
        scales: per system, the NRMSE that counts as a loss of 1.
    """
    per_sample = torch.cat([nrmse_of(f, seam).mean(dim=1) / scales[f.batch.system] for f in forecasts])
    return per_sample.mean(), per_sample.detach()


def _squared_error(forecast: Forecast, target: Tensor) -> Tensor:
    """Sum of squared errors over this rank's cells, ``(b, f)`` in physical units."""
    difference = forecast.decoded.to(target.dtype) - forecast.in_scale(target)
    if forecast.own is not None:
        difference = difference * forecast.own
    return difference.square().sum(dim=(2, 3, 4)) * forecast.scale.square()
