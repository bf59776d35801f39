"""Physics of forecasts beside that of the truth: means over windows, and how long a rollout goes on like the truth."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

from torch import Tensor

from matey.fields import FieldBatch
from matey.physics import MEASURES, measures_of

TRUTH = "truth_"
"""Beginning of the names of the truth's numbers."""

LEAST_CORRELATION = 0.8
"""Correlation with the truth below which a rollout counts as gone astray."""

CORRELATION_TIME = "correlation_time"

Totals = dict[str, tuple[float, int]]
"""Sums by name, and of how many numbers they are."""


class PhysicsSums:
    """Sums the measures of `matey.physics` batch by batch, those of forecasts and those of the truth.

    Raises:
        RegistryError: a package's measure cannot be used.
    """

    def __init__(self) -> None:
        """Start with no windows."""
        dict(MEASURES.items())  # imported here, not after the first forecasts
        self._sums: dict[Hashable, Totals] = {}

    def add(self, key: Hashable, batch: FieldBatch, prediction: Tensor, target: Tensor) -> None:
        """Add those of frames ``(b, f, z, y, x)`` in physical units to the sums of a record."""
        for name, measure in measures_of(batch):
            for before, frame in (("", prediction), (TRUTH, target)):
                if (values := measure.number(frame, batch)) is not None:
                    self.add_numbers(key, before + name, values)

    def add_numbers(self, key: Hashable, name: str, values: Tensor) -> None:
        """Add the numbers ``(b,)`` of some windows under a name."""
        add_up(self._sums.setdefault(key, {}), {name: (values.sum().item(), len(values))})

    def merge(self, later: PhysicsSums) -> None:
        """Add the sums of windows that come after these."""
        for key, totals in later._sums.items():
            add_up(self._sums.setdefault(key, {}), totals)

    def means(self, key: Hashable) -> dict[str, float]:
        """Return the means over the windows of a record by name; nothing of what its system does not have."""
        return {name: total / count for name, (total, count) in self._sums.get(key, {}).items()}


def add_up(totals: Totals, more: Totals) -> None:
    """Add to the totals what is in others."""
    for name, (total, count) in more.items():
        before, number = totals.get(name, (0.0, 0))
        totals[name] = before + total, number + count


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
