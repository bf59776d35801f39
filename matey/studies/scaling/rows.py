"""The rows of a study's table: what was measured at each point and what the model says, side by side in one form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from matey.checkpoints.run_files import METRICS
from matey.config import load_config
from matey.planning.estimate import Estimate
from matey.planning.machine import Machine
from matey.studies.folder import write_table
from matey.studies.scaling.measured import Measured, read_lengths, read_measured
from matey.studies.scaling.running import LENGTHS_FILE
from matey.studies.scaling.study import Point, Study


@dataclass(frozen=True)
class Row:
    """One point, measured or modelled; None stands for what a kind of row does not know.

    Attributes:
        kind: origin of the numbers.
        machine: name of the machine that they were measured on or are modelled for.
        ranks: number of ranks of the point.
        nodes: number of nodes that they fill, None on one machine.
        samples: number of samples of a step.
        steps: number of steps that were timed.
        seconds: seconds of a step: the median, and the quartiles beside it.
        seconds_low: a quarter of the steps were faster.
        seconds_high: a quarter of the steps were slower.
        tokens_per_second: tokens per second of all ranks.
        samples_per_second: samples per second of all ranks.
        efficiency: tokens per second and rank, divided by those of the smallest point of the same kind and machine.
        num_cores: number of cores that all ranks have together; None where each is modelled on a device of its own.
        cpu_seconds: CPU time of a step in seconds, of all ranks.
        cpu_over_first: CPU time of a token, divided by that of the smallest point.
        peak_memory_bytes: peak memory of the rank that held most.
        total_memory_bytes: peak memory of all ranks together.
        communication_share: share of a step spent in communication when nothing overlaps.
        bytes_sent: bytes that a rank puts into collectives in a step.
        longest_tokens: number of tokens of the longest sample whose activations fit the study's limit.
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

    @property
    def shares_cores(self) -> bool:
        """Whether ranks had less than a core each, so that wall-clock time says nothing of how the run scales."""
        return self.num_cores is not None and self.num_cores < self.ranks

    @property
    def activity(self) -> float:
        """CPU time over wall-clock time, of a measured rank in the mean."""
        assert self.cpu_seconds is not None, "measured rows have it"
        return self.cpu_seconds / self.seconds / self.ranks


def samples_of_step(study: Study, point: Point) -> int:
    """Return the global batch of a point."""
    run = load_config(study.folder_of(point) / "run.yaml")
    size = run.parallel.sequence_parallel_size
    assert size != "auto", "a study is not planned with it"
    return run.train.micro_batch * run.train.accumulation * point.ranks // size


def read_points(study: Study) -> dict[Point, Measured]:
    """Return the measurements of each point that came beyond its warm-up."""
    found = {}
    for point in study.points:
        metrics = study.folder_of(point) / "run" / METRICS
        measured = read_measured(metrics, study.warm_up, samples_of_step(study, point))
        if measured is not None:
            found[point] = measured
    return found


def measured_row(study: Study, point: Point, measured: Measured) -> Row:
    """Return the row of a measured point."""
    lengths = read_lengths(study.folder_of(point) / LENGTHS_FILE) if study.lengths else None
    return Row(
        kind="measured",
        machine=study.machine,
        ranks=point.ranks,
        nodes=point.nodes,
        samples=samples_of_step(study, point),
        seconds=measured.seconds.median,
        tokens_per_second=measured.tokens_per_second.median,
        samples_per_second=measured.samples_per_second,
        peak_memory_bytes=measured.peak_memory_bytes,
        steps=measured.num_steps,
        seconds_low=measured.seconds.low,
        seconds_high=measured.seconds.high,
        num_cores=measured.num_cores,
        cpu_seconds=measured.cpu_seconds,
        total_memory_bytes=measured.total_memory_bytes,
        communication_share=measured.communication_share.median if measured.communication_share else None,
        bytes_sent=sum(kind["bytes"] for kind in measured.traffic.values()) if measured.traffic else None,
        longest_tokens=study.lengths.longest(lengths) if study.lengths and lengths else None,
    )


def modelled_row(study: Study, name: str, cost: Estimate, machine: Machine, *, on_nodes: bool) -> Row:
    """Return the row of a point that is modelled on a machine, which the study knows by that name."""
    return Row(
        kind="modelled",
        machine=name,
        ranks=cost.ranks,
        nodes=cost.nodes if on_nodes else None,
        samples=cost.samples_per_step,
        seconds=cost.seconds.total,
        tokens_per_second=cost.tokens_per_second,
        samples_per_second=cost.samples_per_step / cost.seconds.total,
        peak_memory_bytes=cost.memory.total,
        num_cores=cost.nodes * machine.devices_per_node if machine.shared_devices else None,
        communication_share=cost.seconds.communication / cost.seconds.total,
        bytes_sent=sum(cost.bytes_by_kind().values()),
        # Where it can be measured that says more than what training knows beforehand.
        longest_tokens=study.lengths.expected(cost.ranks)
        if study.lengths and name == study.machine and on_nodes
        else None,
    )


def with_efficiency(rows: Sequence[Row]) -> list[Row]:
    """Fill in what compares rows of one kind, in order of ranks, with the first of them."""
    if not rows:
        return []
    rows = sorted(rows, key=lambda row: row.ranks)
    first = rows[0]
    own = first.tokens_per_second / first.ranks
    filled = []
    for row in rows:
        row = replace(row, efficiency=row.tokens_per_second / row.ranks / own)
        if row.cpu_seconds is not None:
            row = replace(row, cpu_over_first=_per_token(row) / _per_token(first))
        filled.append(row)
    return filled


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """Write the table; what a row does not know stays empty."""
    write_table(path, [asdict(row) | {"shares_cores": row.shares_cores} for row in rows])


def _per_token(row: Row) -> float:
    assert row.cpu_seconds is not None, "measured rows have it"
    return row.cpu_seconds / (row.tokens_per_second * row.seconds)
