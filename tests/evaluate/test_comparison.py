"""Several models are scored on the same frames, each as if it were evaluated alone."""

from dataclasses import replace

import pytest
import torch

from matey import MateyConfig, MateyModel
from matey.data import DataError
from matey.evaluate.evaluation import Candidate, Protocol, evaluate, plan_comparison
from matey.report.evaluation import comparison_text, error_text
from tests.support.evaluations import plan_tasks
from tests.support.models import PATCHES, make_model

PROTOCOL = Protocol(leads=(1,), rollout_steps=2, max_windows=3)


@pytest.fixture(scope="module")
def compared(model, held_out):
    """Two models of different histories, and what is found of each."""
    other = make_model(PATCHES, torch.float32, history=4)
    candidates = [Candidate("two", model, 2), Candidate("four", other, 4)]
    plans = plan_comparison(candidates, held_out, PROTOCOL)
    return candidates, [
        evaluate(candidate.model, candidate.own(held_out), PROTOCOL, tasks)
        for candidate, tasks in zip(candidates, plans, strict=True)
    ]


def test_models_of_different_histories_forecast_the_same_frames(compared):
    _, (two, four) = compared
    for a, b in zip(two.records, four.records, strict=True):
        assert (a.system, a.field, a.kind, a.lead, a.num_windows) == (b.system, b.field, b.kind, b.lead, b.num_windows)
        assert a.persistence_vrmse == pytest.approx(b.persistence_vrmse) and a.vrmse != b.vrmse


@pytest.mark.whole
def test_a_model_has_the_errors_that_it_has_alone(compared, held_out):
    candidates, (_, four) = compared
    data = replace(held_out, num_frames=4)
    alone = evaluate(candidates[1].model, data, PROTOCOL, plan_tasks(candidates[1].model, data, PROTOCOL))
    assert repr(alone.records) == repr(four.records)  # in which seams of rollouts are not a number


def test_a_model_that_lacks_a_field_is_named(model, held_out):
    other = MateyModel(MateyConfig(["density"], width=24, num_blocks=1))
    with pytest.raises(DataError, match="other: shallow_water: The model has no field 'water_height'"):
        plan_comparison([Candidate("one", model, 2), Candidate("other", other, 2)], held_out, PROTOCOL)


def test_the_table_has_a_column_for_each_model_and_a_star_for_the_smallest_error(compared):
    _, evaluations = compared
    lines = comparison_text(["two", "a model of four frames"], evaluations).splitlines()
    assert "two" in lines[0] and "a model of four frames" in lines[0] and "persistence" in lines[0]
    first = next(record for record in evaluations[0].records if record.field == "all")
    other = next(record for record in evaluations[1].records if record.field == "all")
    errors = [error_text(first.vrmse), error_text(other.vrmse)]
    errors[first.vrmse > other.vrmse] += "*"
    assert lines[2].split()[:5] == ["shallow_water", "lead", "1", *errors]
