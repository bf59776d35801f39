"""Sets a few plain numbers on the logarithmic axes of studies' figures."""

from __future__ import annotations

import math
from collections.abc import Iterable

from matplotlib.axis import Axis
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator, StrMethodFormatter


def plain_ticks(shown: Iterable[Axis]) -> None:
    """Set a few plain numbers on logarithmic axes: 1, 2 and 5 times powers of 10, or others where these are too many or few."""
    for axis in shown:
        low, high = axis.get_view_interval()
        if not 0 < low <= high < math.inf:  # nothing is drawn: all models diverged
            continue
        if high < 1.0001 * low:  # one value: Matplotlib does not widen the limits of shared logarithmic axes
            low, high = low / 2, high * 2
            set_limits = axis.axes.set_xlim if axis is axis.axes.xaxis else axis.axes.set_ylim
            set_limits(low, high)
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)))
        for factors in ((1, 2, 5), (1, 3), (1,)):
            round_numbers = [factor * 10.0**power for power in powers for factor in factors]
            found = [number for number in round_numbers if low <= number <= high]
            if len(found) <= 5:  # more would overlap
                break
        if len(found) < 3:
            found = [number for number in MaxNLocator(4).tick_values(low, high) if low <= number <= high]
        axis.set_major_locator(FixedLocator(found))
        axis.set_major_formatter(StrMethodFormatter("{x:,.6g}"))
        axis.set_minor_locator(NullLocator())  # further labels would overlap
