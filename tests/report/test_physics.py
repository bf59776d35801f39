"""Physics in tables and pages."""

import math

from matey.evaluate.records import Record
from matey.report.tables import physics_rows, physics_text

GAS = {"mass": 0.5, "truth_mass": 1e-7}


def record(kind, lead, physics, system="gas", field="all"):
    return Record(
        system, field, kind, lead, {"nrmse": 0.1}, {"nrmse": 0.2}, 4, extrapolation_nrmse=0.3, physics=physics
    )


RECORDS = [
    record("lead", 1, GAS),
    record("lead", 5, GAS),
    record("rollout", 9, GAS),
    record("rollout", 10, GAS | {"correlation_time": math.inf, "persistence_correlation_time": 2.5}),
    record("lead", 5, {}, system="foam"),
]


def test_the_longest_lead_and_the_ends_of_rollouts_are_told_beside_the_truth():
    assert physics_rows([RECORDS]) == [
        ("gas", "lead 5", "drift of mass", "0.5", "1e-07"),
        ("gas", "rollout 10", "drift of mass", "0.5", "1e-07"),
        ("gas", "rollout 10", "correlation time", "> 10", "2.5 (persistence)"),
    ]


def test_models_stand_beside_each_other_and_one_that_blew_up_is_called_so():
    other = [record(r.kind, r.lead, dict.fromkeys(r.physics, math.nan), r.system) for r in RECORDS]
    assert physics_rows([RECORDS, other])[0] == ("gas", "lead 5", "drift of mass", "0.5", "diverged", "1e-07")
    lines = physics_text(["a", "b"], [RECORDS, other]).splitlines()
    assert lines[0].split() == ["physics", "a", "b", "truth"] and len(lines) == 5
    assert lines[4].split()[:2] == ["correlation", "time"]
