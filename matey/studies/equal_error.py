"""The cost at which a model reaches another's error, interpolated from its errors at several costs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence


def cost_text(curve: Sequence[tuple[float, float]], error: float, form: Callable[[float], str]) -> str:
    """Return the cost at which a curve reaches an error, as text; beyond the curve's ends, the end's cost after ``<`` or ``>``.

    Between points, the logarithm of the error is interpolated linearly in the logarithm of the cost, without extrapolation.

    Args:
        curve: cost and error of each point, the smallest cost first.
        error: the error to reach.
        form: function that formats a cost.
    """
    if not curve:
        return "-"
    if curve[0][1] <= error:
        return f"< {form(curve[0][0])}"
    for (cost, high), (later, low) in itertools.pairwise(curve):
        if low <= error:
            return form(cost * (later / cost) ** (math.log(high / error) / math.log(high / low)))
    return f"> {form(curve[-1][0])}"
