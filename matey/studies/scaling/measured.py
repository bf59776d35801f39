"""What a point's run measured, from the lines of its ``metrics.jsonl``."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matey.checkpoints.trained import read_log


@dataclass(frozen=True)
class Spread:
    """The median of a number over the steps, and its quartiles."""

    median: float
    low: float
    high: float

    @classmethod
    def from_values(cls, values: Iterable[float]) -> Spread:
        """Take the quartiles of at least one value."""
        values = list(values)
        low, median, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else 3 * values
        return cls(median, low, high)


@dataclass(frozen=True)
class Measured:
    """Costs of a run's steps, without those of the warm-up; medians over the steps.

    Attributes:
        num_steps: number of steps that were timed.
        seconds: seconds of a step.
        seconds_by_part: seconds of a step on rank 0 by part: data, forward, backward, optimizer, waiting for other
            ranks.
        tokens_per_second: tokens per second of all ranks together.
        samples_per_second: samples per second of all ranks together.
        num_tokens: number of tokens of a step, on all ranks together.
        cpu_seconds: CPU time of a step in seconds, on all ranks together.
        num_cores: number of cores that all ranks have together.
        peak_memory_bytes: peak memory of the rank that held most.
        total_memory_bytes: peak memory of all ranks together.
        traffic: communication of rank 0 in a step, ``bytes``, ``calls`` and ``seconds`` for each kind of collective; empty
            if not counted.
        communication_share: share of a step spent in communication, from the steps that were counted, in which nothing
            overlaps; None if none were.
    """

    num_steps: int
    seconds: Spread
    seconds_by_part: dict[str, float]
    tokens_per_second: Spread
    samples_per_second: float
    num_tokens: float
    cpu_seconds: float
    num_cores: float
    peak_memory_bytes: int
    total_memory_bytes: int
    traffic: dict[str, dict[str, float]]
    communication_share: Spread | None


def last_step(metrics: Path) -> int:
    """Return the last step that a run logged, 0 if it has not come to that."""
    return max((line["step"] for line in _steps(metrics)), default=0)


def read_measured(metrics: Path, warm_up: int, num_samples: int) -> Measured | None:
    """Read the measurements of a run, None if it has not come beyond the warm-up.

    Args:
        metrics: the run's ``metrics.jsonl``.
        warm_up: number of first steps that are left out.
        num_samples: number of samples of a step, on all ranks.
    """
    lines = [line for line in _steps(metrics) if line["step"] > warm_up]
    counted = [line for line in lines if "traffic" in line]
    # Steps whose communication is counted are slower; where all are, they are all there is.
    steps = [line for line in lines if "traffic" not in line] or counted
    if not steps:
        return None
    seconds = Spread.from_values(line["seconds"] for line in steps)
    return Measured(
        num_steps=len(steps),
        seconds=seconds,
        seconds_by_part={
            part: statistics.median(line["seconds_by_part"][part] for line in steps)
            for part in steps[0]["seconds_by_part"]
        },
        tokens_per_second=Spread.from_values(line["num_tokens"] / line["seconds"] for line in steps),
        samples_per_second=num_samples / seconds.median,
        num_tokens=statistics.median(line["num_tokens"] for line in steps),
        cpu_seconds=statistics.median(line["cpu_seconds"] for line in steps),
        num_cores=steps[-1]["num_cores"],
        peak_memory_bytes=max(line["peak_memory_bytes"] for line in lines),
        total_memory_bytes=max(line["total_memory_bytes"] for line in lines),
        traffic=_traffic(counted),
        communication_share=Spread.from_values(map(_share, counted)) if counted else None,
    )


def read_lengths(path: Path) -> list[dict[str, Any]] | None:
    """Read the points between which the longest sequence lies, None if they were not measured."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def _steps(metrics: Path) -> list[dict[str, Any]]:
    """Return the lines of training steps."""
    return [line for line in read_log(metrics) if "seconds" in line] if metrics.exists() else []


def _share(line: dict[str, Any]) -> float:
    return sum(kind["seconds"] for kind in line["traffic"].values()) / line["seconds"]


def _traffic(lines: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Return the medians over the steps, kind by kind."""
    kinds = sorted({kind for line in lines for kind in line["traffic"]})
    nothing = {"bytes": 0, "calls": 0, "seconds": 0.0}
    return {
        kind: {what: statistics.median(line["traffic"].get(kind, nothing)[what] for line in lines) for what in nothing}
        for kind in kinds
    }
