"""Means and deviations over the seeds of a model, and of quotients of two models, seed by seed, as text."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from statistics import mean, stdev

OfSeeds = Mapping[int, float]
"""A value for each seed."""


def mean_and_deviation(values: Iterable[float], digits: int = 3) -> str:
    """Return the mean of the seeds' values and their deviation as text, or that a seed diverged."""
    known = list(values)
    if not known:
        return "-"
    if not all(map(math.isfinite, known)):
        return "diverged"
    center = f"{mean(known):.{digits}f}"
    return center if len(known) < 2 else f"{center} ± {deviation(known):.{digits}f}"


def deviation(values: Iterable[float]) -> float:
    """Return the sample standard deviation over seeds; 0 for a single seed, NaN if one diverged."""
    known = list(values)
    if not all(map(math.isfinite, known)):
        return math.nan
    return stdev(known) if len(known) > 1 else 0.0


def quotient(values: OfSeeds, others: OfSeeds) -> str:
    """Return the quotient of two models' values as text: mean and deviation of the quotients of the seeds that both have.

    Models of the same seed see the same windows in the same order, so part of what seeds differ by is not in the quotient.
    It needs positive values of the other model.
    """
    common = [seed for seed in values if seed in others]
    if any(others[seed] <= 0 for seed in common):
        return "-"
    return mean_and_deviation((values[seed] / others[seed] for seed in common), digits=2)
