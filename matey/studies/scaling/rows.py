"""The rows of a study's table: what was measured at each point and what the model says, side by side in one form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path

from matey.checkpoints.run_files import METRICS
from matey.config import load_config
from matey.planning.estimate import Estimate
from matey.planning.machine import Machine
from matey.studies.folder import write_table
from matey.studies.scaling.measured import Row, read_lengths, read_measured
from matey.studies.scaling.running import LENGTHS_FILE
from matey.studies.scaling.study import Point, Study


def samples_of_step(study: Study, point: Point) -> int:
    """Return the global batch of a point."""
    run = load_config(study.folder_of(point) / "run.yaml")
    size = run.parallel.sequence_parallel_size
    assert size != "auto", "a study is not planned with it"
    return run.train.micro_batch * run.train.accumulation * point.ranks // size


def read_points(study: Study) -> dict[Point, Row]:
    """Return the measurements of each point that came beyond its warm-up."""
    found = {}
    for point in study.points:
        folder = study.folder_of(point)
        about = samples_of_step(study, point), study.machine, point.ranks, point.nodes
        row = read_measured(folder / "run" / METRICS, study.warm_up, *about)
        if row is not None:
            lengths = read_lengths(folder / LENGTHS_FILE) if study.lengths else None
            found[point] = replace(
                row, longest_tokens=study.lengths.longest(lengths) if study.lengths and lengths else None
            )
    return found


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
        bytes_sent=sum(cost.by_kind("num_bytes").values()),
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
    columns = [each.name for each in fields(Row) if each.name not in ("seconds_by_part", "traffic")]
    columns.append("shares_cores")
    write_table(path, [{name: getattr(row, name) for name in columns} for row in rows])


def _per_token(row: Row) -> float:
    assert row.cpu_seconds is not None, "measured rows have it"
    return row.cpu_seconds / (row.tokens_per_second * row.seconds)
