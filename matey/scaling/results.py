"""Puts together what was measured at a study's points and what the model says of them and of larger ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matey.config import ConfigError
from matey.data.trajectories import DataError
from matey.scaling.machine import Machine, load_machine
from matey.scaling.measured import Measured
from matey.scaling.model import Model
from matey.scaling.rows import Row, measured_row, modelled_row, read_points, samples_of_step, with_efficiency
from matey.scaling.study import Point, Study


@dataclass(frozen=True)
class Results:
    """What a report shows.

    Attributes:
        study: that it is about.
        measured: what was measured at each point.
        rows: measured, then modelled on the study's machine, then modelled on others.
        model_note: how the model was made, or why there is none.
    """

    study: Study
    measured: dict[Point, Measured]
    rows: list[Row]
    model_note: str

    def of(self, kind: str, machine: str | None = None) -> list[Row]:
        """Return the rows of a kind on a machine, by default the study's."""
        return [row for row in self.rows if row.kind == kind and row.machine == (machine or self.study.machine)]

    @property
    def other_machines(self) -> list[str]:
        """Machines that nothing was measured on."""
        return [name for name in dict.fromkeys(row.machine for row in self.rows) if name != self.study.machine]


def collect(study: Study, also_on: Sequence[str] = ()) -> Results:
    """Read what was measured and model the same points and larger ones."""
    measured = read_points(study)
    if not measured:
        raise ConfigError(
            f"No point of {study.folder} has a step beyond the warm-up of {study.warm_up}; start `run` first, and look at "
            "log.txt in the points' folders if it failed."
        )
    rows = with_efficiency([measured_row(study, point, seen) for point, seen in measured.items()])
    try:
        model = Model.of(study, samples_of_step(study, study.points[0]))
    except DataError as error:
        return Results(study, measured, rows, f"There is no model here, since the data cannot be read: {error}")
    machine = model.fitted(load_machine(study.machine), measured)
    on_nodes = study.points[0].nodes is not None
    costs = model.costs(study.points, machine)
    if on_nodes:
        costs += [cost for cost in model.extended(machine) if cost.ranks not in {point.ranks for point in study.points}]
    rows += with_efficiency([modelled_row(study, study.machine, cost, on_nodes=on_nodes) for cost in costs])
    for name in also_on:
        extended = model.extended(load_machine(name))
        rows += with_efficiency([modelled_row(study, name, cost, on_nodes=True) for cost in extended])
    return Results(study, measured, rows, _note(study, load_machine(study.machine), machine))


def _note(study: Study, given: Machine, fitted: Machine) -> str:
    """Say what was fitted."""
    links = "the links of its file, since the counted collectives do not tell latency from bandwidth"
    if fitted.inside != given.inside or fitted.between != given.between:
        links = (
            f"links fitted to the counted collectives: inside a node {fitted.inside.latency * 1e6:.3g} microseconds and "
            f"{fitted.inside.bandwidth / 1e9:.3g} GB/s, between nodes {fitted.between.latency * 1e6:.3g} microseconds and "
            f"{fitted.between.bandwidth / 1e9:.3g} GB/s"
        )
    rates = ", ".join(f"{name} {fitted.rate(name) / 1e9:.3g}" for name in fitted.achieved)
    return (
        f"Modelled on {fitted.name}: computing at {rates} GFLOP/s of a die, fitted to the measured steps where that precision "
        f"was measured, and {links}."
    )
