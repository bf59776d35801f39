"""What a model takes until it has another's error, read from the errors that it had at several costs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence


def cost_text(curve: Sequence[tuple[float, float]], error: float, form: Callable[[float], str]) -> str:
    """Return the cost at which a curve comes down to an error, as text; where that is beyond its ends, the end after a sign.

    Between points the logarithm of the error is taken to be straight over that of the cost; beyond them nothing is said.

    Args:
        curve: cost and error of each point, the smallest cost first.
        error: the error.
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
