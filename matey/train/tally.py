"""Sums over the micro-batches of a step or a validation, on all ranks: errors by system, samples, tokens."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial

import torch
from torch import Tensor

from matey.model.forecast import Forecast
from matey.parallel.collectives import sum_over_ranks
from matey.parallel.late import Late


class Tally:
    """Sums of errors and counts on each rank, added up over the ranks in one reduction at the end."""

    def __init__(self, systems: Iterable[str], device: torch.device) -> None:
        self.systems = list(systems)
        self._sums = torch.zeros(2, len(self.systems) + 1, dtype=torch.float64, device=device)

    def add(self, forecasts: Sequence[Forecast], per_sample: Tensor) -> None:
        """Count a micro-batch with the error of each of its samples, ``(b,)`` over all its batches in order."""
        start = 0
        for forecast in forecasts:
            self.add_errors(forecast.samples.system, per_sample[start : start + forecast.samples.number])
            self._sums[0, -1] += forecast.num_tokens
            start += forecast.samples.number

    def add_errors(self, system: str, errors: Tensor) -> None:
        """Count the errors ``(b,)`` of samples of one system."""
        column = self.systems.index(system)
        self._sums[0, column] += errors.sum()
        self._sums[1, column] += len(errors)

    def reduce(self, leave: bool = False) -> Late:
        """Add up the sums of all ranks to `Totals`, and in the same reduction find out whether any wants to ``leave``."""
        self._sums[1, -1] = leave
        return Late(sum_over_ranks(self._sums), partial(Totals, self.systems))


class Totals:
    """Sums over all ranks of a step or a validation: errors and counts by system, tokens, and whether a rank wants to leave."""

    def __init__(self, systems: list[str], sums: list[list[float]]) -> None:
        self._systems, self._errors, self._counts = systems, sums[0][:-1], sums[1][:-1]
        self.num_tokens = int(sums[0][-1])
        self.leave = sums[1][-1] > 0
        self.by_system = {
            system: error / count
            for system, error, count in zip(systems, self._errors, self._counts, strict=True)
            if count > 0
        }

    @property
    def per_sample(self) -> float:
        """Mean error over all samples."""
        return sum(self._errors) / sum(self._counts)

    @property
    def share_by_system(self) -> dict[str, float]:
        """Share of each system in the sum of all samples' errors, which shows a system that dominates the loss."""
        total = sum(self._errors) or 1.0
        errors = dict(zip(self._systems, self._errors, strict=True))
        return {system: errors[system] / total for system in self.by_system}

    def __str__(self) -> str:
        """The mean error and, if there are several systems, the system with the largest share of it."""
        shares = self.share_by_system
        most = max(shares, key=shares.__getitem__)
        return f"{self.per_sample:.4f}" + (f" ({shares[most]:.0%} {most})" if len(shares) > 1 else "")

    def mean_over(self, systems: Sequence[str]) -> float:
        """Mean over some systems of their mean errors."""
        errors = [error for system, error in self.by_system.items() if system in systems]
        return sum(errors) / len(errors)
