"""Physics in the tables of studies."""

import math

from matey.evaluate.records import Record
from matey.studies.physics import COLUMNS, physics_text, row_of


def row(system, forecast, model, **physics):
    about = {"system": system, "forecast": forecast, "model": model, "persistence_nrmse": 0.2}
    return {**about, **dict.fromkeys(COLUMNS, math.nan), **physics}


def test_every_row_has_every_column_whatever_its_system_has():
    record = Record(
        "gas",
        "all",
        "lead",
        1,
        {"nrmse": 0.1},
        {"nrmse": 0.2},
        4,
        extrapolation_nrmse=0.3,
        physics={"mass": 0.5, "other": 1.0},
    )
    columns = row_of(record)
    assert tuple(columns)[-len(COLUMNS) :] == COLUMNS
    assert columns["mass"] == 0.5 and math.isnan(columns["truth_power_fine"])
    assert (columns["system"], columns["forecast"], columns["ratio"]) == ("gas", "lead 1", 0.5)


def test_the_rollout_in_the_longest_steps_is_told_beside_truth_and_persistence():
    gas = {"truth_mass": 1e-7, "persistence_correlation_time": 2.5}
    rows = [
        row("gas", "lead 5", "a", mass=9.0, **gas),
        row("gas", "rollout 10", "a", mass=9.0, **gas),
        row("gas", "rollout 10 by 5", "a", mass=0.1, correlation_time=4.0, **gas),
        row("gas", "rollout 10 by 5", "a", mass=0.3, **gas),  # stays above to its end
        row("gas", "rollout 10 by 5", "b", correlation_time=1.0, **gas),
        row("foam", "rollout 10 by 5", "a", correlation_time=1.0, persistence_correlation_time=2.0),
    ]
    gases, foam = (text.splitlines() for text in physics_text(rows, lambda row: row["model"]).split("\n\n"))
    assert gases[0].split("  ")[0] == "gas, rollout 10 by 5" and gases[0].endswith("drift of mass")
    assert [line.split() for line in gases[2:]] == [
        ["truth", "1e-07"],
        ["persistence", "2.500"],
        ["a", ">", "7.000", "±", "4.243", "0.2"],
        ["b", "1.000", "diverged"],
    ]
    assert "drift" not in foam[0] and [line.split() for line in foam[2:]] == [["persistence", "2.000"], ["a", "1.000"]]
    assert physics_text(rows[:1], lambda row: row["model"]) == ""


def test_models_that_are_scored_on_other_windows_have_a_truth_of_their_own():
    rows = [
        row("gas", "rollout 10", model, persistence_nrmse=error, truth_mass=mass, mass=0.1, correlation_time=1.0)
        for model, error, mass in (("a", 0.2, 1e-7), ("b", 0.3, 1e-3), ("c", 0.2, 1e-7))
    ]
    first, second = (text.splitlines() for text in physics_text(rows, lambda row: row["model"]).split("\n\n"))
    assert [line.split()[0] for line in first[2:]] == ["truth", "persistence", "a", "c"] and first[2].split()[
        1
    ] == "1e-07"
    assert [line.split()[0] for line in second[2:]] == ["truth", "persistence", "b"] and second[2].split()[1] == "0.001"
