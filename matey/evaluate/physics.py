"""Compares the physics of forecasts and truth: means over windows, and how long a rollout stays close to the truth."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from matey.fields import FieldBatch
from matey.physics import measures_of

TRUTH = "truth_"
"""Prefix of the names of the truth's numbers."""

LEAST_CORRELATION = 0.8
"""Correlation with the truth below which a rollout counts as lost."""

CORRELATION_TIME = "correlation_time"

Totals = dict[str, tuple[float, int]]
"""Sums by name, each with the number of its terms."""


def numbers_of(batch: FieldBatch, prediction: Tensor, target: Tensor) -> dict[str, Tensor]:
    """Return a system's measures ``(b,)`` by name, for predicted and true frames ``(b, f, z, y, x)``."""
    found = {
        before + name: measure.number(frame, batch)
        for name, measure in measures_of(batch)
        for before, frame in (("", prediction), (TRUTH, target))
    }
    return {name: values for name, values in found.items() if values is not None}


def add_up(totals: Totals, more: Totals) -> None:
    """Add other totals to ``totals`` in place."""
    for name, (total, count) in more.items():
        before, number = totals.get(name, (0.0, 0))
        totals[name] = before + total, number + count


def means_of(totals: Totals) -> dict[str, float]:
    """Return the mean of each sum."""
    return {name: total / count for name, (total, count) in totals.items()}


def correlation_time(leads: Sequence[int], correlations: Sequence[float]) -> float:
    """Return after how many snapshots a rollout's mean correlation with the truth falls below `LEAST_CORRELATION`.

    The correlation is interpolated linearly between two snapshots, from 1 at the start.

    Args:
        leads: ascending numbers of snapshots.
        correlations: mean correlation after each; a value that is not finite comes from a rollout that blew up; it counts as 0.

    Returns:
        Number of snapshots; infinity if it never falls below.
    """
    lead_before, before = 0, 1.0
    for lead, correlation in zip(leads, correlations, strict=True):
        now = correlation if math.isfinite(correlation) else 0.0
        if now < LEAST_CORRELATION:
            return lead_before + (lead - lead_before) * (before - LEAST_CORRELATION) / (before - now)
        lead_before, before = lead, now
    return math.inf
