"""Whether the processes that read data keep up with the steps that train on it."""

from __future__ import annotations

import math
from dataclasses import dataclass

MB = 1e6


@dataclass(frozen=True)
class Reading:
    """The reading of a rank.

    Attributes:
        needed: bytes of float32 a second, so that no step waits.
        rate: bytes a second that one process reads; None where that is not known.
        workers: processes of a rank that read ahead; with 0 a rank reads by itself.
        ranks: number of ranks that read.
        source: the source of the rate.
    """

    needed: float
    rate: float | None
    workers: int
    ranks: int
    source: str = ""

    @property
    def is_bottleneck(self) -> bool:
        """Whether steps wait for what is read."""
        return self.rate is not None and self.needed > self.rate * max(1, self.workers)

    def __str__(self) -> str:
        """Return it as a line."""
        of_all = self.ranks * self.needed / 1e9
        needed = f"reading, MB a second    {self.needed / MB:10.1f}   of a rank, {of_all:,.1f} GB of all"
        if self.rate is None:
            return f"{needed}, so that no step waits; what one process reads is not known (--read_rate)"
        readers = f"{self.workers} workers" if self.workers else "one process"
        reads = f"{needed}; {readers} can read {self.rate * max(1, self.workers) / MB:.1f} ({self.source})"
        if not self.is_bottleneck:
            return f"{reads}: enough"
        times, wanted = self.needed / (self.rate * max(1, self.workers)), math.ceil(self.needed / self.rate)
        return (
            f"{reads}: reading is the bottleneck, a step takes {times:.1f} times as long; set data.workers to {wanted}"
        )
