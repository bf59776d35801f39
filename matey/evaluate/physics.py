"""Physics of forecasts beside that of the truth: means over windows, and how long a rollout goes on like the truth."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from matey.fields import FieldBatch
from matey.physics import measures_of

TRUTH = "truth_"
"""Beginning of the names of the truth's numbers."""

LEAST_CORRELATION = 0.8
"""Correlation with the truth below which a rollout counts as gone astray."""

CORRELATION_TIME = "correlation_time"

Totals = dict[str, tuple[float, int]]
"""Sums by name, and of how many numbers they are."""


def numbers_of(batch: FieldBatch, prediction: Tensor, target: Tensor) -> dict[str, Tensor]:
    """Return the measures ``(b,)`` that a system has, by name, of frames ``(b, f, z, y, x)`` and of the true ones."""
    found = {
        before + name: measure.number(frame, batch)
        for name, measure in measures_of(batch)
        for before, frame in (("", prediction), (TRUTH, target))
    }
    return {name: values for name, values in found.items() if values is not None}


def add_up(totals: Totals, more: Totals) -> None:
    """Add to the totals what is in others."""
    for name, (total, count) in more.items():
        before, number = totals.get(name, (0.0, 0))
        totals[name] = before + total, number + count


def means_of(totals: Totals) -> dict[str, float]:
    """Return the mean of each sum."""
    return {name: total / count for name, (total, count) in totals.items()}


def correlation_time(leads: Sequence[int], correlations: Sequence[float]) -> float:
    """Return after how many snapshots a rollout's mean correlation with the truth falls below `LEAST_CORRELATION`.

    Between two snapshots it is taken to fall along a straight line, from 1 at the start.

    Args:
        leads: ascending numbers of snapshots.
        correlations: mean correlation after each; one that is not finite is that of a rollout that blew up, and counts as 0.

    Returns:
        Snapshots; infinity where it does not fall below.
    """
    lead_before, before = 0, 1.0
    for lead, correlation in zip(leads, correlations, strict=True):
        now = correlation if math.isfinite(correlation) else 0.0
        if now < LEAST_CORRELATION:
            return lead_before + (lead - lead_before) * (before - LEAST_CORRELATION) / (before - now)
        lead_before, before = lead, now
    return math.inf
