"""Puts together what was measured at a study's points and what the model says of them and of larger ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matey.config import ConfigError
from matey.data.trajectories import DataError
from matey.planning.machine import Machine, load_machine
from matey.studies.scaling.measured import Row
from matey.studies.scaling.model import Model
from matey.studies.scaling.rows import modelled_row, read_points, samples_of_step, with_efficiency
from matey.studies.scaling.study import Study


@dataclass(frozen=True)
class Results:
    """The contents of a report.

    Attributes:
        study: the study that the report is about.
        rows: the rows measured, then those modelled on the study's machine, then those modelled on others.
        model_note: a note on how the model was made, or why there is none.
    """

    study: Study
    rows: list[Row]
    model_note: str

    def rows_of(self, kind: str, machine: str | None = None) -> list[Row]:
        """Return the rows of a kind on a machine, by default the study's."""
        return [row for row in self.rows if row.kind == kind and row.machine == (machine or self.study.machine)]

    @property
    def other_machines(self) -> list[str]:
        """Machines that nothing was measured on."""
        return [name for name in dict.fromkeys(row.machine for row in self.rows) if name != self.study.machine]


def collect(study: Study, also_on: Sequence[str] = ()) -> Results:
    """Read the measurements and model the same points and larger ones.

    Raises:
        ConfigError: nothing was measured, of a study for one machine, or a machine is not known.
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
    """Describe the fit."""
    kinds = [kind for kind in fitted.factors if fitted.factors[kind] != given.factors.get(kind)]
    factors = ", ".join(f"{kind} {fitted.factors[kind] / given.factors.get(kind, 1.0):.2f}" for kind in kinds)
    slower = given.memory_bandwidth / fitted.memory_bandwidth  # as all that computing depends on
    computing = f"computing takes {slower:.2f} times what the file of {given.name} gives"
    collectives = (
        f"; collectives, of which those counted hold waiting too: {factors}" if kinds else "; no collective was counted"
    )
    return (
        "The model has the rates and links of a machine file, and one factor for each of these, fitted to the measured steps: "
        f"{computing}{collectives}."
    )
