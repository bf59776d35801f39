"""The row of a point in a study's table, and its measurements from the run's ``metrics.jsonl``."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from matey.checkpoints.trained import read_log


@dataclass(frozen=True)
class Row:
    """One point, measured or modelled; None stands for values that a kind of row does not have.

    Attributes:
        kind: origin of the numbers.
        machine: name of the machine of the measurement or model.
        ranks: number of ranks of the point.
        nodes: number of nodes that the ranks fill; None on one machine.
        samples: number of samples of a step.
        steps: number of timed steps.
        seconds: median of the seconds of a step.
        seconds_low: lower quartile of the seconds of a step.
        seconds_high: upper quartile of the seconds of a step.
        tokens_per_second: tokens per second of all ranks.
        samples_per_second: samples per second of all ranks.
        efficiency: tokens per second and rank, divided by those of the smallest point of the same kind and machine.
        num_cores: number of cores of all ranks together; None if each rank is modelled on its own device.
        cpu_seconds: CPU time of a step on all ranks, in seconds.
        cpu_over_first: CPU time per token, divided by that of the smallest point.
        peak_memory_bytes: largest peak memory of a rank.
        total_memory_bytes: peak memory of all ranks together.
        communication_share: share of a step spent in communication if nothing overlaps; measured in steps whose
            communication is counted, None without such steps.
        bytes_sent: bytes that a rank puts into collectives in a step.
        longest_tokens: number of tokens of the longest sample whose activations fit the study's limit.
        seconds_by_part: seconds of a step on rank 0 by part: data, forward, backward, optimizer, waiting for other ranks.
        traffic: communication of rank 0 in a step, ``bytes``, ``calls`` and ``seconds`` for each kind of collective; empty
            if not counted.
    """

    kind: Literal["measured", "modelled"]
    machine: str
    ranks: int
    nodes: int | None
    samples: int
    seconds: float
    tokens_per_second: float
    samples_per_second: float
    peak_memory_bytes: float
    steps: int | None = None
    seconds_low: float | None = None
    seconds_high: float | None = None
    efficiency: float | None = None
    num_cores: float | None = None
    cpu_seconds: float | None = None
    cpu_over_first: float | None = None
    total_memory_bytes: float | None = None
    communication_share: float | None = None
    bytes_sent: float | None = None
    longest_tokens: float | None = None
    seconds_by_part: dict[str, float] = field(default_factory=dict)
    traffic: dict[str, dict[str, float]] = field(default_factory=dict)

    @property
    def shares_cores(self) -> bool:
        """Whether ranks had less than one core each, so that wall time does not show how the run scales."""
        return self.num_cores is not None and self.num_cores < self.ranks

    @property
    def activity(self) -> float:
        """CPU time divided by wall time, averaged over the measured ranks."""
        assert self.cpu_seconds is not None, "measured rows have it"
        return self.cpu_seconds / self.seconds / self.ranks


def last_step(metrics: Path) -> int:
    """Return the last step that a run logged; 0 before the first."""
    return max((line["step"] for line in _steps(metrics)), default=0)


def read_measured(
    metrics: Path, warm_up: int, samples: int, machine: str, ranks: int, nodes: int | None = None
) -> Row | None:
    """Read the measurements of a run as medians over its steps; None if no step follows the warm-up.

    Args:
        metrics: the run's ``metrics.jsonl``.
        warm_up: number of first steps that are left out.
        samples: number of samples of a step, on all ranks.
        machine: name of the machine.
        ranks: number of ranks.
        nodes: number of nodes that the ranks fill; None on one machine.
    """
    lines = [line for line in _steps(metrics) if line["step"] > warm_up]
    counted = [line for line in lines if "traffic" in line]
    # Steps whose communication is counted are slower, and used only if there are no others.
    steps = [line for line in lines if "traffic" not in line] or counted
    if not steps:
        return None
    times = [line["seconds"] for line in steps]
    low, seconds, high = statistics.quantiles(times, n=4, method="inclusive") if len(times) > 1 else 3 * times
    traffic = _traffic(counted)
    return Row(
        kind="measured",
        machine=machine,
        ranks=ranks,
        nodes=nodes,
        samples=samples,
        seconds=seconds,
        tokens_per_second=statistics.median(line["num_tokens"] / line["seconds"] for line in steps),
        samples_per_second=samples / seconds,
        peak_memory_bytes=max(line["peak_memory_bytes"] for line in lines),
        steps=len(steps),
        seconds_low=low,
        seconds_high=high,
        num_cores=steps[-1]["num_cores"],
        cpu_seconds=statistics.median(line["cpu_seconds"] for line in steps),
        total_memory_bytes=max(line["total_memory_bytes"] for line in lines),
        communication_share=statistics.median(map(_share, counted)) if counted else None,
        bytes_sent=sum(kind["bytes"] for kind in traffic.values()) if traffic else None,
        seconds_by_part={
            part: statistics.median(line["seconds_by_part"][part] for line in steps)
            for part in steps[0]["seconds_by_part"]
        },
        traffic=traffic,
    )


def read_lengths(path: Path) -> list[dict[str, Any]] | None:
    """Read the points that determine the longest sequence; None if they were not measured."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def _steps(metrics: Path) -> list[dict[str, Any]]:
    """Return the lines of training steps from a log."""
    return [line for line in read_log(metrics) if "seconds" in line] if metrics.exists() else []


def _share(line: dict[str, Any]) -> float:
    return sum(kind["seconds"] for kind in line["traffic"].values()) / line["seconds"]


def _traffic(lines: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Return the medians of the messages over the steps, by kind."""
    kinds = sorted({kind for line in lines for kind in line["traffic"]})
    nothing = {"bytes": 0, "calls": 0, "seconds": 0.0}
    return {
        kind: {what: statistics.median(line["traffic"].get(kind, nothing)[what] for line in lines) for what in nothing}
        for kind in kinds
    }
