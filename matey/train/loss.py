"""The training loss in patch space: each rank scores the patches that it decoded, and no field is put together."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from matey.evaluate.metrics import NRMSE_EPSILON
from matey.model.forecast import Forecast, patches_at
from matey.model.seam import Seam

# A system at rest has no change to measure an error by; below this share of its spread over the domain it counts as at rest.
REST = 1e-2


def relative_errors(forecast: Forecast, seam: Seam, relative_to: str = "nrmse") -> Tensor:
    """Return the error of each sample and field, ``(b, f)``.

    Args:
        forecast: of a batch with a target.
        seam: sums over the ranks that share the samples.
        relative_to: ``nrmse`` divides the L2 norm of the error by that of the target (DESIGN section 6), ``change`` by that
            of the target's change since the last frame: 1 is persistence, for every system and lead time.
    """
    target = forecast.batch.target.to(forecast.scale.dtype)
    error = seam.reduce(_squared_error(forecast, target))
    if relative_to == "change":
        change = _norm(target - forecast.batch.last)
        spread = forecast.scale * target[0, 0].numel() ** 0.5
        reference = torch.maximum(change, REST * spread)
    else:
        reference = _norm(target)
    reference = reference + NRMSE_EPSILON
    # The root's slope is infinite at zero; an error of rounding size has none that would help.
    return (error / reference.square()).clamp_min(torch.finfo(error.dtype).eps ** 2).sqrt()


def training_loss(forecasts: Sequence[Forecast], seam: Seam, relative_to: str) -> tuple[Tensor, Tensor]:
    """Return the mean over the samples of a micro-batch, and the error of each sample ``(b,)``, both averaged over fields."""
    per_sample = torch.cat([relative_errors(forecast, seam, relative_to).mean(dim=1) for forecast in forecasts])
    return per_sample.mean(), per_sample.detach()


def _squared_error(forecast: Forecast, target: Tensor) -> Tensor:
    """Sum of squared errors over this rank's cells, ``(b, f)`` in physical units."""
    wanted = forecast.in_scale(target)
    total = torch.zeros_like(forecast.scale)
    for level in forecast.levels:
        difference = level.values.to(wanted.dtype) - patches_at(level, wanted)
        rows_per_sample = wanted[0, 0].numel() // math.prod(level.patch)
        total = total.index_add(0, level.row // rows_per_sample, difference.square().sum(dim=(2, 3, 4, 5)))
    return total * forecast.scale.square()


def _norm(field: Tensor) -> Tensor:
    return torch.linalg.vector_norm(field, dim=(2, 3, 4))
