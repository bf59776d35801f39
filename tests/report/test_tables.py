"""Tables of evaluations."""

import math
from dataclasses import replace

from matey.evaluate.evaluation import Evaluation
from matey.evaluate.records import Record
from matey.report.evaluation import error_text, number, physics_table, summary_records, summary_text

GAS = {"mass": 0.5, "truth_mass": 1e-7}


def record(kind, lead, physics, system="gas", field="all"):
    return Record(
        system, field, kind, lead, {"vrmse": 0.1}, {"vrmse": 0.2}, 4, extrapolation_vrmse=0.3, physics=physics
    )


RECORDS = [
    record("lead", 1, GAS),
    record("lead", 5, GAS),
    record("rollout", 9, GAS),
    record("rollout", 10, GAS | {"correlation_time": math.inf, "persistence_correlation_time": 2.5}),
    record("lead", 5, {}, system="foam"),
]


def test_the_longest_lead_and_the_ends_of_rollouts_are_told_beside_the_truth():
    assert physics_table(["a"], [Evaluation(RECORDS, [])]).rows == [
        ("gas", "lead 5", "drift of mass", "0.5", "1e-07"),
        ("gas", "rollout 10", "drift of mass", "0.5", "1e-07"),
        ("gas", "rollout 10", "correlation time", "> 10", "2.5 (persistence)"),
    ]


def test_models_stand_beside_each_other_and_one_that_blew_up_is_called_so():
    other = [record(r.kind, r.lead, dict.fromkeys(r.physics, math.nan), r.system) for r in RECORDS]
    table = physics_table(["a", "b"], [Evaluation(RECORDS, []), Evaluation(other, [])])
    assert table.head == ("physics", "", "", "a", "b", "truth")
    assert table.rows[0] == ("gas", "lead 5", "drift of mass", "0.5", "diverged", "1e-07")


def test_a_field_worse_than_mean_or_last_frame_is_named_though_the_mean_hides_it():
    errors = {"all": 0.8, "heat": 1.4, "salt": 0.9, "speed": 0.2}
    records = [
        replace(
            record("lead", 5, {}, field=name), errors={"nrmse": 0.1, "vrmse": e}, persistence={"nrmse": 1, "vrmse": 0.6}
        )
        for name, e in errors.items()
    ]
    rows = summary_text(Evaluation(records, [])).split("\n\n")[1].splitlines()[-2:]
    assert [row.split()[-3:] for row in rows] == [["heat", "1.40", "0.600"], ["salt", "0.900", "0.600"]]


def test_the_summary_has_every_lead_and_the_last_step_of_the_rollout(evaluation):
    chosen = [(r.system, r.field, r.kind, r.lead) for r in summary_records(evaluation.records)]
    assert chosen == [
        (system, "all", kind, lead)
        for system in ("shallow_water", "diffusion_reaction")
        for kind, lead in (("lead", 1), ("lead", 3), ("rollout", 4), ("rollout by 3", 4))
    ]


def test_the_printed_table_gives_errors_ratio_and_tokens_within_a_hundred_columns(evaluation):
    lines = summary_text(evaluation).splitlines()
    assert max(map(len, lines)) <= 100
    first = summary_records(evaluation.records)[0]
    row = [
        first.system,
        "lead",
        "1",
        *(error_text(each[name]) for name in ("vrmse", "nrmse") for each in (first.errors, first.persistence)),
        f"{first.ratio:.3f}",
        number(first.seams),
        "5",
    ]
    assert lines[2].split() == row
    cost = evaluation.costs[1]
    costs = next(at for at, line in enumerate(lines) if line.startswith("tokens per sample"))
    assert lines[costs + 3].split()[:4] == [cost.system, f"{cost.tokens:.1f}", "32", f"{cost.share:.1%}"]
