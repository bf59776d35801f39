"""Collects the rows of a study's table: the measured points, and the model's predictions for these and for larger points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

from matey.checkpoints.run_files import METRICS
from matey.config import ConfigError
from matey.data.trajectories import DataError
from matey.planning.estimate import Estimate
from matey.planning.machine import Machine, load_machine
from matey.studies.folder import write_table
from matey.studies.scaling.measured import Row, read_lengths, read_measured
from matey.studies.scaling.model import Model
from matey.studies.scaling.running import LENGTHS_FILE
from matey.studies.scaling.study import Point, Study


@dataclass(frozen=True)
class Results:
    """The contents of a scaling study's report.

    Attributes:
        study: the study of the report.
        rows: the measured rows, then those modelled on the study's machine, then those modelled on others.
        model_note: a note on the fit of the model, or on the reason why there is none.
    """

    study: Study
    rows: list[Row]
    model_note: str

    def rows_of(self, kind: str, machine: str | None = None) -> list[Row]:
        """Return the rows of a kind on a machine, by default the study's."""
        return [row for row in self.rows if row.kind == kind and row.machine == (machine or self.study.machine)]

    @property
    def other_machines(self) -> list[str]:
        """Names of the machines without measurements."""
        return [name for name in dict.fromkeys(row.machine for row in self.rows) if name != self.study.machine]


def collect(study: Study, also_on: Sequence[str] = ()) -> Results:
    """Read the measurements, and model the same points and larger ones.

    Raises:
        ConfigError: a study for one machine has no measurement, or a machine is unknown.
    """
    measured = read_points(study)
    on_nodes = study.points[0].nodes is not None
    if not measured and not on_nodes:
        raise ConfigError(
            f"No point of {study.folder} has a step beyond the warm-up of {study.warm_up}; start `run` first, and look at "
            "its logs/ if it failed."
        )
    rows = with_efficiency(list(measured.values()))
    try:
        model = Model.from_study(study, samples_of_step(study, study.points[0]))
    except DataError as error:
        return Results(study, rows, f"There is no model here, since the data cannot be read: {error}")
    given = load_machine(study.machine)
    machine = model.fitted(given, measured)
    costs = model.costs(study.points, machine)
    if on_nodes:
        costs += [cost for cost in model.extended(machine) if cost.ranks not in {point.ranks for point in study.points}]
    rows += with_efficiency([modelled_row(study, study.machine, cost, given, on_nodes=on_nodes) for cost in costs])
    for name in (name for name in also_on if name != study.machine):
        other = load_machine(name)
        rows += with_efficiency(
            [modelled_row(study, name, cost, other, on_nodes=True) for cost in model.extended(other)]
        )
    note = _note(given, machine) if measured else f"The model is that of {given.name}'s file."
    return Results(study, rows, note)


def _note(given: Machine, fitted: Machine) -> str:
    """Return sentences that describe the fitted machine."""
    kinds = [kind for kind in fitted.factors if fitted.factors[kind] != given.factors.get(kind)]
    factors = ", ".join(f"{kind} {fitted.factors[kind] / given.factors.get(kind, 1.0):.2f}" for kind in kinds)
    slower = given.memory_bandwidth / fitted.memory_bandwidth  # the fit scales all rates of computing by this factor
    computing = f"computing takes {slower:.2f} times what the file of {given.name} gives"
    collectives = (
        f"; collectives, of which those counted hold waiting too: {factors}" if kinds else "; no collective was counted"
    )
    return (
        "The model has the rates and links of a machine file, and one factor for each of these, fitted to the measured steps: "
        f"{computing}{collectives}."
    )


def samples_of_step(study: Study, point: Point) -> int:
    """Return the global batch of a point."""
    run = study.run_of(point)
    size = run.parallel.sequence_parallel_size
    assert size != "auto", "a study is not planned with it"
    return run.train.micro_batch * run.train.accumulation * point.ranks // size


def read_points(study: Study) -> dict[Point, Row]:
    """Return the measurements of each point with steps after the warm-up."""
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
    """Return the modelled row of a point on a machine; ``name`` is the machine's name in the study."""
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
        # Where a length can be measured, the measurement says more than an estimate of the blocks alone.
        longest_tokens=study.lengths.expected(cost.ranks)
        if study.lengths and name == study.machine and on_nodes
        else None,
    )


def with_efficiency(rows: Sequence[Row]) -> list[Row]:
    """Fill in the values that compare rows of one kind, in order of ranks, with the first row."""
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
    """Write the table as CSV; values that a row does not have stay empty."""
    columns = [each.name for each in fields(Row) if each.name not in ("seconds_by_part", "traffic")]
    columns.append("shares_cores")
    write_table(path, [{name: getattr(row, name) for name in columns} for row in rows])


def _per_token(row: Row) -> float:
    assert row.cpu_seconds is not None, "measured rows have it"
    return row.cpu_seconds / (row.tokens_per_second * row.seconds)
