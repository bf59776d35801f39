"""Measures of the error of predicted fields, per sample and field; averaging is left to the caller.

Cells that hold no data, those where the target is NaN, do not count.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from matey.fields import has_gaps
from matey.registry import Registry

NRMSE_EPSILON = 1e-12
"""Added to the root mean square of the target, in the units of the field.

It is the floor that `matey.tokens.normalisation` puts under a field's standard deviation. A field that is zero
throughout is predicted as this floor times a decoded value of order one, so its NRMSE is of order one in any unit. A
larger constant would hide the errors of fields in small units, and none at all would give 0 / 0.
"""

VRMSE_EPSILON = 1e-12
"""Share of the target's mean square that is added to its variance: of a constant, float32 resolves no deviation.

The Well adds 1e-7 in the square of the field's unit, which hides the errors of fields in small units or far from zero.
"""

REST = 0.01
"""Least deviation of a target by which its error is measured, as a share of the deviation of the known frames.

The error of a field that has come to rest would be divided by nothing, and outweigh all others in a mean.
"""

CELLS = (-3, -2, -1)


@dataclass(frozen=True)
class CellSums:
    """Sums over the cells of predictions and targets, ``(..., b, f)`` in float64; sums of parts of a field can be added.

    Attributes:
        num_cells: number of cells of a field ``(b, f)`` that hold data.
        error: sum of the squares of prediction minus target.
        target: sum of the squares of the target.
        predicted_deviation: sum of the squared deviations of the prediction from its mean.
        target_deviation: sum of the squared deviations of the target from its mean.
        product: sum of the products of both deviations.
        known_deviation: sum of the squared deviations of a known frame from its mean, the larger of the last two; 0 if unknown.
    """

    num_cells: Tensor
    error: Tensor
    target: Tensor
    predicted_deviation: Tensor
    target_deviation: Tensor
    product: Tensor
    known_deviation: Tensor | float = 0.0


@dataclass(frozen=True)
class Metric:
    """A measure of error that every evaluation reports.

    Attributes:
        label: heading of its columns.
        meaning: sentence or two that explain it in a report.
        value: function of a prediction and a target, both ``(b, f, z, y, x)`` in physical units, that returns ``(b, f)``; both
            are NaN in cells that hold no data.
        of_sums: function of their `CellSums` that returns the same number, ``(..., b, f)``, for fields split over ranks;
            without it, such fields have no number.
    """

    label: str
    meaning: str
    value: Callable[[Tensor, Tensor], Tensor]
    of_sums: Callable[[CellSums], Tensor] | None = None


def nrmse(prediction: Tensor, target: Tensor) -> Tensor:
    """Root mean square error over the root mean square of the target, ``||p - u|| / ||u||`` over the cells.

    Args:
        prediction: ``(b, f, z, y, x)``, the predicted frames.
        target: ``(b, f, z, y, x)``, the true frames.

    Returns:
        The error ``(b, f)``, without unit; 0 is perfect, 1 is as far off as predicting zero. Its gradient is zero, not
        NaN, where the prediction is exact.
    """
    gaps = target.isnan() if has_gaps(target) else None
    return _root_mean_square(prediction - target, gaps) / (_root_mean_square(target, gaps) + NRMSE_EPSILON)


def vrmse(prediction: Tensor, target: Tensor) -> Tensor:
    """Root mean square error over the standard deviation of the target (The Well, arXiv:2412.00568).

    As in The Well's code, the variance is the unbiased one. A floor is added to it, `VRMSE_EPSILON` of the mean square.

    Args:
        prediction: ``(b, f, z, y, x)``, the predicted frames.
        target: ``(b, f, z, y, x)``, the true frames.

    Returns:
        The error ``(b, f)``, without unit; 1 is as far off as predicting the mean of the target.
    """
    return _vrmse_of(_sums_of(prediction, target))


def correlation(prediction: Tensor, target: Tensor) -> Tensor:
    """Pearson's correlation of the cell values of two frames.

    Args:
        prediction: ``(b, f, z, y, x)``, the predicted frames.
        target: ``(b, f, z, y, x)``, the true frames.

    Returns:
        The correlation ``(b, f)``, from -1 to 1; 1 is perfect. It is 1 where both frames are constant, 0 where only one is.
    """
    return _correlation_of(_sums_of(prediction, target))


def _sums_of(prediction: Tensor, target: Tensor) -> CellSums:
    gaps, frames = target.isnan(), torch.stack([prediction, target]).double()
    frames, number = frames.masked_fill(gaps, 0), (~gaps).sum(dim=CELLS)
    off = (frames - (frames.sum(dim=CELLS) / number)[..., None, None, None]).masked_fill(gaps, 0)
    return CellSums(
        num_cells=number,
        error=(frames[0] - frames[1]).square().sum(dim=CELLS),
        target=frames[1].square().sum(dim=CELLS),
        predicted_deviation=off[0].square().sum(dim=CELLS),
        target_deviation=off[1].square().sum(dim=CELLS),
        product=(off[0] * off[1]).sum(dim=CELLS),
    )


def _nrmse_of(sums: CellSums) -> Tensor:
    return (sums.error / sums.num_cells).sqrt() / ((sums.target / sums.num_cells).sqrt() + NRMSE_EPSILON)


def _vrmse_of(sums: CellSums) -> Tensor:
    return vrmse_of_sums(sums.error, sums.target, sums.target_deviation, sums.num_cells, sums.known_deviation)


def vrmse_of_sums(
    error: Tensor, target: Tensor, target_deviation: Tensor, num_cells: Tensor, known_deviation: Tensor | float
) -> Tensor:
    """Return `vrmse` of the sums over the cells that `CellSums` names; a single cell has its square for a variance."""
    deviation = torch.where(num_cells > 1, target_deviation, target)
    least = torch.as_tensor(REST**2 * known_deviation, dtype=deviation.dtype, device=deviation.device)
    variance = deviation.maximum(least) / (num_cells - 1).clamp_min(1)
    return (error / num_cells / (variance + VRMSE_EPSILON * target / num_cells + NRMSE_EPSILON**2)).sqrt()


def _correlation_of(sums: CellSums) -> Tensor:
    products = (sums.predicted_deviation, sums.target_deviation, sums.product)
    ours, true, both = (each / sums.num_cells + NRMSE_EPSILON**2 for each in products)
    return both / (ours * true).sqrt()


def error_text(error: float) -> str:
    """Format an error with three significant digits.

    >>> error_text(0.12345), error_text(0.5), error_text(4.5e-7)
    ('0.123', '0.500', '4.50e-07')
    """
    return f"{error:#.3g}".rstrip(".")


def _root_mean_square(field: Tensor, gaps: Tensor | None = None) -> Tensor:
    num_cells: Tensor | int = field.shape[-3:].numel()
    if gaps is not None:
        field, num_cells = field.masked_fill(gaps, 0), (~gaps).sum(dim=CELLS)
    return torch.linalg.vector_norm(field, dim=CELLS) / num_cells**0.5


NRMSE = Metric("NRMSE", "Root mean square error over the root mean square of the true field.", nrmse, _nrmse_of)
VRMSE = Metric(
    "VRMSE",
    "Root mean square error over the true field's deviation, as in The Well: 1 is the field's mean.",
    vrmse,
    _vrmse_of,
)
CORRELATION = Metric(
    "correlation",
    "Of the values of the cells with the true ones: 1 is the same pattern.",
    correlation,
    _correlation_of,
)
COLUMNS = ("system", "field", "kind", "lead", "num_windows", "seams", "extrapolation_vrmse", "best_trajectory",
           "worst_trajectory", "worst", "physics", "conserve", "tokens_worth", "errors", "persistence")  # fmt: skip
"""Names of the other columns of an evaluation, see `matey.evaluate.records.Record`; no metric may have such a name."""

METRICS: Registry[Metric] = Registry(
    "metric",
    "matey.metrics",
    {"vrmse": "matey.metrics:VRMSE", "nrmse": "matey.metrics:NRMSE", "correlation": "matey.metrics:CORRELATION"},
    type="matey.metrics:Metric",
    reserved=COLUMNS,
)
"""All measures that are reported, in this order; ratios and rankings use the first."""
