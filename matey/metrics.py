"""The measures of error of predicted fields, per sample and field; how they are averaged is left to who reports them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from matey.registry import Registry

NRMSE_EPSILON = 1e-12
"""Added to the root mean square of the target, in the units of the field.

It is the floor that `matey.tokens.normalisation` puts under a field's standard deviation. A field that is zero
throughout is predicted as this floor times a decoded value of order one, so its NRMSE is of order one in any unit. A
larger constant would hide the errors of fields in small units, and none at all would give 0 / 0.
"""

VRMSE_EPSILON = 1e-7
"""The Well's constant, added to the variance of the target in the square of the field's unit."""

CELLS = (-3, -2, -1)


@dataclass(frozen=True)
class Metric:
    """A measure of error that every evaluation reports.

    Attributes:
        label: heading of its columns.
        meaning: sentence or two that explain it in a report.
        value: function of a prediction and a target, both ``(b, f, z, y, x)`` in physical units, that returns ``(b, f)``.
    """

    label: str
    meaning: str
    value: Callable[[Tensor, Tensor], Tensor]


def nrmse(prediction: Tensor, target: Tensor) -> Tensor:
    """Root mean square error over the root mean square of the target, ``||p - u|| / ||u||`` over the cells.

    Args:
        prediction: ``(b, f, z, y, x)``, the predicted frames.
        target: ``(b, f, z, y, x)``, the true frames.

    Returns:
        The error ``(b, f)``, without unit; 0 is perfect, 1 is as far off as predicting zero. Its gradient is zero, not
        NaN, where the prediction is exact.
    """
    return _root_mean_square(prediction - target) / (_root_mean_square(target) + NRMSE_EPSILON)


def vrmse(prediction: Tensor, target: Tensor) -> Tensor:
    """Root mean square error over the standard deviation of the target (The Well, arXiv:2412.00568).

    As in The Well's code, the variance is the unbiased one and `VRMSE_EPSILON` is added to it.

    Args:
        prediction: ``(b, f, z, y, x)``, the predicted frames.
        target: ``(b, f, z, y, x)``, the true frames.

    Returns:
        The error ``(b, f)``, without unit; 1 is as far off as predicting the mean of the target.
    """
    mean_square_error = (prediction - target).square().mean(dim=CELLS)
    return (mean_square_error / (target.var(dim=CELLS) + VRMSE_EPSILON)).sqrt()


def correlation(prediction: Tensor, target: Tensor) -> Tensor:
    """Pearson's correlation of the values of the cells of both frames.

    Args:
        prediction: ``(b, f, z, y, x)``, the predicted frames.
        target: ``(b, f, z, y, x)``, the true frames.

    Returns:
        The correlation ``(b, f)``, from -1 to 1, which is perfect; also 1 where both are constant, and 0 where one is.
    """
    ours, true = (frame.double() - frame.double().mean(dim=CELLS, keepdim=True) for frame in (prediction, target))
    sizes = (_root_mean_square(ours).square() + NRMSE_EPSILON**2) * (
        _root_mean_square(true).square() + NRMSE_EPSILON**2
    )
    return ((ours * true).mean(dim=CELLS) + NRMSE_EPSILON**2) / sizes.sqrt()


def error_text(error: float) -> str:
    """Format an error with four digits after the point, or two digits where these would all be zero.

    >>> error_text(0.12345), error_text(4.5e-7)
    ('0.1235', '4.5e-07')
    """
    return f"{error:.1e}" if 0 < error < 5e-5 else f"{error:.4f}" if error < 1000 else f"{error:.3g}"


def _root_mean_square(field: Tensor) -> Tensor:
    num_cells = field.shape[-3:].numel()
    return torch.linalg.vector_norm(field, dim=CELLS) / num_cells**0.5


NRMSE = Metric("NRMSE", "Root mean square error over the root mean square of the true field.", nrmse)
VRMSE = Metric(
    "VRMSE", "Root mean square error over the true field's deviation, as in The Well: 1 is the field's mean.", vrmse
)
CORRELATION = Metric(
    "correlation", "Of the values of the cells with the true ones: 1 is the same pattern.", correlation
)
COLUMNS = ("system", "field", "kind", "lead", "num_windows", "seams", "extrapolation_nrmse", "best_trajectory",
           "worst_trajectory", "worst", "physics", "errors", "persistence")  # fmt: skip
"""Names of the other columns of an evaluation, see `matey.evaluate.records.Record`: no metric may be called so."""

METRICS: Registry[Metric] = Registry(
    "metric",
    "matey.metrics",
    {"nrmse": "matey.metrics:NRMSE", "vrmse": "matey.metrics:VRMSE", "correlation": "matey.metrics:CORRELATION"},
    type="matey.metrics:Metric",
    reserved=COLUMNS,
)
"""All measures that are reported, in this order; the first is the one that ratios and rankings go by."""
