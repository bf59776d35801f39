"""The cost at which a model reaches another's error, interpolated from its errors at several costs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

Curve = Sequence[tuple[float, float]]
"""Cost and error of each point, the smallest cost first."""


def crossing(curve: Curve, error: float) -> tuple[str, float]:
    """Return the cost at which a curve reaches an error, after ``""``; beyond its ends that of the end, after ``<`` or ``>``.

    Between points, the logarithm of the error is interpolated linearly in the logarithm of the cost, without extrapolation.
    The cost is NaN if the curve has no points or the error is not finite.
    """
    if not (curve and math.isfinite(error)):
        return "", math.nan
    if curve[0][1] <= error:
        return "<", curve[0][0]
    for (cost, high), (later, low) in itertools.pairwise(curve):
        if low <= error:
            return "", cost * (later / cost) ** (math.log(high / error) / math.log(high / low))
    return ">", curve[-1][0]


def cost_text(curve: Curve, error: float, form: Callable[[float], str]) -> str:
    """Return what `crossing` finds as text, the cost formatted by ``form``; ``-`` if there is none."""
    side, cost = crossing(curve, error)
    return f"{side} {form(cost)}".strip() if math.isfinite(cost) else "-"
