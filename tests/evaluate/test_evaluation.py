import copy
import math

import pytest
import torch

from matey import MateyConfig, MateyModel
from matey.data import DataError, open_dataset
from matey.evaluate.evaluation import Protocol, evaluate
from matey.evaluate.held_out import HeldOut
from matey.report.evaluation import summary_text
from tests.support.evaluations import plan_tasks
from tests.support.laws import law
from tests.support.models import PATCHES, make_model
from tests.support.small_files import write_waves


def run(model, data, **protocol):
    protocol = Protocol(**protocol)
    return evaluate(model, data, protocol, plan_tasks(model, data, protocol))


def errors(evaluation):
    return {(r.system, r.field, r.kind, r.lead): (r.vrmse, r.errors["nrmse"]) for r in evaluation.records}


def test_there_is_a_record_for_every_system_field_kind_and_lead(evaluation):
    expected = {
        (system, field, kind, lead)
        for system, fields in {
            "shallow_water": ("water_height", "all"),
            "diffusion_reaction": ("activator", "inhibitor", "all"),
        }.items()
        for field in fields
        for kind, leads in {"lead": (1, 3), "rollout": (1, 2, 3, 4), "rollout by 3": (1, 2, 3, 4)}.items()
        for lead in leads
    }
    assert set(errors(evaluation)) == expected
    assert len(evaluation.records) == len(expected)
    assert {record.num_windows for record in evaluation.records} == {5}


def test_an_untrained_model_is_as_good_as_persistence(held_out):
    for record in run(
        make_model(PATCHES, torch.float32, trained=False), held_out, leads=(3,), rollout_steps=2, max_windows=3
    ).records:
        assert record.vrmse == record.persistence_vrmse > 0
        assert record.errors["nrmse"] == record.persistence["nrmse"] > 0
        assert record.ratio == 1


def test_the_first_step_of_a_rollout_is_the_forecast_at_lead_one(model, held_out):
    found = errors(run(model, held_out, leads=(1,), rollout_steps=1, max_windows=5))
    for (system, field, kind, lead), error in found.items():
        assert error == pytest.approx(found[system, field, "lead" if kind == "rollout" else "rollout", lead])


def test_a_rollout_by_a_longer_lead_starts_with_the_forecasts_at_its_leads(model, held_out):
    found = errors(run(model, held_out, leads=(3,), rollout_steps=3, rollout_lead=3, max_windows=5))
    for (system, field, kind, lead), error in found.items():
        if kind == "rollout by 3":
            assert error[0] == pytest.approx(found[system, field, "rollout", 1][0]) or lead > 1
    # The windows of a rollout and of a lead are the same where as many frames follow.
    for system, field in {key[:2] for key in found}:
        assert found[system, field, "rollout by 3", 3] == pytest.approx(found[system, field, "lead", 3])


@law("rule", ["threshold", "fraction", "budget"], quick=["threshold", "budget"])
def test_forecasts_without_bounds_are_reported_as_diverged(rule, shallow_water):
    assert summary_text(without_bounds(rule, shallow_water)).split("\n\n")[0].count("diverged") == 6


def without_bounds(rule, data):
    """The evaluation of a model whose forecasts are infinite."""
    model = make_model(PATCHES, torch.float32, rule=rule, refine=8 if rule == "budget" else 0.3)
    with torch.no_grad():
        model.cells_after.field_bias += torch.inf
    data = HeldOut((data,), ((0,),), num_frames=2)
    return run(model, data, leads=(1,), rollout_steps=2, rollout_lead=2, max_windows=1)


def test_the_size_of_a_batch_changes_no_error(model, held_out):
    few = {"leads": (5,), "rollout_steps": 2, "max_windows": 2}
    one_by_one = errors(run(model, held_out, batch_size=1, **few))
    together = errors(run(model, held_out, batch_size=64, **few))
    assert one_by_one.keys() == together.keys()
    for key, error in one_by_one.items():
        assert error == pytest.approx(together[key], rel=1e-4)


def test_windows_are_shared_out_among_the_data_sets_of_a_system(model, shallow_water):
    data = HeldOut((shallow_water, shallow_water), ((0,), (1,)), num_frames=2)
    tasks = plan_tasks(model, data, Protocol(leads=(1,), rollout_steps=0, max_windows=6))
    assert [len(task.windows) for task in tasks] == [3, 3]
    assert [{window.set_index for window in task.windows} for task in tasks] == [{0}, {1}]
    assert {record.num_windows for record in run(model, data, leads=(1,), rollout_steps=0, max_windows=6).records} == {
        6
    }


def test_the_plan_counts_forecasts_with_tokens_and_without(model, held_out):
    protocol, counts = Protocol(leads=(1,), rollout_steps=2, max_windows=3, batch_size=2), []
    tasks = plan_tasks(model, held_out, protocol)
    evaluate(model, held_out, protocol, tasks, counts.append)
    assert sum(counts) == 2 * (3 + 3 + 3 * 2)


def test_the_tokens_worth_is_the_error_without_what_they_give_over_that_with_it(model, held_out, evaluation):
    without = copy.deepcopy(model)
    for parameter in without.giving.parameters():
        torch.nn.init.zeros_(parameter)
    others = run(without, held_out, leads=(1, 3), rollout_steps=4, max_windows=5, batch_size=5, rollout_lead=3).records
    measured = [pair for pair in zip(evaluation.records, others, strict=True) if pair[0].kind != "rollout"]
    assert {record.kind for record, _ in measured} == {"lead", "rollout by 3"}
    for record, other in measured:
        assert record.tokens_worth == other.vrmse / record.vrmse != 1 == other.tokens_worth


def test_a_network_without_tokens_has_no_worth_of_tokens_and_none_are_counted(held_out):
    found = run(
        make_model(PATCHES, torch.float32, network="cells"), held_out, leads=(1,), rollout_steps=0, max_windows=1
    )
    assert {math.isnan(record.tokens_worth) for record in found.records} == {True}
    assert {math.isnan(cost.tokens) for cost in found.costs} == {True} and "tokens' worth" not in summary_text(found)


def test_only_the_trajectories_held_out_are_read(model, shallow_water):
    data = HeldOut((shallow_water,), ((2,),), num_frames=2)
    for task in plan_tasks(model, data, Protocol(leads=(1,), rollout_steps=2)):
        assert {window.trajectory for window in task.windows} == {2}
    assert all("0002" in example.trajectory for example in run(model, data, leads=(1,), rollout_steps=0).examples)


def test_adaptive_tokens_are_counted_beside_the_uniform_fine_grid(evaluation):
    for cost in evaluation.costs:
        assert cost.uniform_tokens == 2 * 4 * 4
        assert cost.tokens < cost.uniform_tokens
        assert cost.share == cost.tokens / cost.uniform_tokens


def test_examples_lie_at_the_beginning_the_middle_and_the_end_at_the_largest_lead(evaluation):
    frames = [(example.system, example.frame, example.lead) for example in evaluation.examples]
    assert frames[:3] == [("shallow_water", 1, 3), ("shallow_water", 4, 3), ("shallow_water", 8, 3)]
    for example in evaluation.examples:
        assert sum(example.tokens_per_level) == example.layout.num_tokens


def test_an_unknown_field_is_named_with_its_system(held_out):
    with pytest.raises(DataError, match="shallow_water: The model has no field 'water_height'"):
        plan_tasks(MateyModel(MateyConfig(["density"], width=24, num_blocks=1)), held_out, Protocol())


def test_a_patch_that_does_not_divide_the_history_names_the_file(held_out):
    with pytest.raises(DataError, match=r"2D_rdb_NA_NA.h5: Patch t=3 does not divide the t=2 frames of the history"):
        plan_tasks(make_model(((3, 1, 4, 4),)), held_out, Protocol())


def test_a_trajectory_shorter_than_the_rollout_is_refused_before_computing(model, tmp_path):
    data_set = open_dataset(write_waves(tmp_path, "shallow_water", num_frames=8))
    data = HeldOut((data_set,), ((0,),), num_frames=2)
    plan_tasks(model, data, Protocol(leads=(1, 6), rollout_steps=6))
    with pytest.raises(DataError, match="expected at least 9 frames"):
        plan_tasks(model, data, Protocol(leads=(1,), rollout_steps=7))
