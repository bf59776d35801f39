"""What is measured of a scaling study, and the model that is fitted to it."""

import json
from dataclasses import replace
from itertools import pairwise

import pytest

from matey.config import dump_config, load_config
from matey.planning.machine import load_machine
from matey.studies.scaling import Study, make_points
from matey.studies.scaling_report import NODES, Model, Row, cells_of, modelled_row, read_measured, with_efficiency
from tests.support.runs import small_run


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scaling")
    run_yaml = small_run(folder)
    study = Study(folder / "study", "weak", "cpu", 1, 5, tuple(make_points([1, 2, 4], None)))
    for point in study.points:
        study.folder_of(point).mkdir(parents=True)
        (study.folder_of(point) / "run.yaml").write_text(dump_config(load_config(run_yaml(parallel={"threads": 1}))))
    (study.folder_of(study.points[0]) / "ds_config.json").write_text(json.dumps({"zero_optimization": {"stage": 1}}))
    return replace(Model.from_study(study), samples=4)


def extended(model, machine):
    return model.costs(make_points(NODES, machine.devices_per_node), machine)


def line(step, seconds, traffic=None):
    numbers = {"num_tokens": 100, "seconds": seconds, "cpu_seconds": 2 * seconds, "num_cores": 2.0}
    memory = {"peak_memory_bytes": 1000 + step, "total_memory_bytes": 2000 + step}
    return {"step": step, **numbers, **memory} | ({"traffic": traffic} if traffic else {})


def test_warm_up_and_counted_steps_are_not_timed_and_a_cut_off_line_is_left_out(model):
    point = model.study.points[1]
    metrics = model.study.folder_of(point) / "run" / "metrics.jsonl"
    assert read_measured(model.study, point) is None
    metrics.parent.mkdir()
    some, other = {"all_reduce": {"seconds": 3.0}, "broadcast": {"seconds": 1.0}}, {"all_reduce": {"seconds": 1.0}}
    lines = [line(1, 50.0), line(2, 1.0), line(3, 2.0), line(4, 4.0), line(5, 8.0, some), line(6, 16.0, other)]
    metrics.write_text(
        "".join(json.dumps(each) + "\n" for each in (*lines, {"step": 6, "valid_nrmse": 1})) + '{"step": 7, "se'
    )
    found = read_measured(model.study, point)
    assert (found.seconds, found.tokens_per_second, found.cpu_seconds) == (2.0, 50, 4.0)
    assert found.communication_share == pytest.approx((4 / 8 + 1 / 16) / 2)
    assert found.traffic == {"all_reduce": 2.0, "broadcast": 0.5}
    assert (found.peak_memory_bytes, found.total_memory_bytes) == (1006, 2006)
    metrics.write_text("".join(json.dumps(line(step, 1.0, some)) + "\n" for step in range(1, 5)))
    assert read_measured(model.study, point).seconds == 1  # all were counted: they are timed
    metrics.unlink()


def as_if_measured(cost, num_cores):
    """What a run would log that takes exactly what the model says."""
    seconds, share = cost.seconds.total, cost.seconds.communication / cost.seconds.total
    told = {"num_cores": num_cores, "communication_share": share, "traffic": cost.by_kind("seconds")}
    return Row("measured", cost.ranks, None, 1, seconds, 1.0, 1.0, 1, **told)


def test_fitted_to_a_slower_machines_steps_it_is_that_machine(model):
    given = load_machine("cpu")
    slower = given.model_copy(
        update={
            "achieved": {name: share / 3 for name, share in given.achieved.items()},
            "memory_bandwidth": given.memory_bandwidth / 3,
            "kernel_seconds": given.kernel_seconds * 3,
            "factors": {kind: 5 * factor for kind, factor in given.factors.items()},
        }
    )
    points = model.study.points
    measured = {point: as_if_measured(cost, 4) for point, cost in zip(points, model.costs(points, slower), strict=True)}
    fitted = model.fitted(given, measured)
    for cost, expected in zip(model.costs(points, fitted), model.costs(points, slower), strict=True):
        assert cost.seconds.total == pytest.approx(expected.seconds.total)
        assert cost.seconds.communication == pytest.approx(expected.seconds.communication)


def test_points_whose_ranks_share_cores_do_not_count_where_there_are_others(model):
    given = load_machine("cpu")
    measured = {
        point: as_if_measured(cost, num_cores=2)
        for point, cost in zip(model.study.points, model.costs(model.study.points, given), strict=True)
    }
    last = model.study.points[-1]
    measured[last] = replace(measured[last], seconds=99.0)
    assert model.fitted(given, measured).kernel_seconds == pytest.approx(given.kernel_seconds)


def test_ranks_that_leave_cores_idle_have_the_nodes_memory_and_less_of_its_speed(model):
    cpu = load_machine("cpu")
    one, two, four = model.costs(model.study.points, cpu)
    assert one.memory_limit == 2 * two.memory_limit == 4 * four.memory_limit == 2 * cpu.memory
    # A rank has one thread, so one alone leaves a core idle.
    assert one.seconds.forward == pytest.approx(two.seconds.forward)
    assert four.seconds.forward > 1.1 * two.seconds.forward
    assert model.costs(make_points([92], 2), cpu) == []


def test_modelled_ranks_that_share_cores_are_marked_as_measured_ones_are(model):
    cpu = load_machine("cpu")
    costs = model.costs(model.study.points, cpu)
    rows = [modelled_row(model.study, cost, cpu, on_nodes=False) for cost in costs]
    assert [(row.num_cores, row.shares_cores) for row in rows] == [(2, False), (2, False), (2, True)]
    assert [cells_of(row)[5] for row in with_efficiency(rows)][2] == "shared cores"
    frontier = load_machine("frontier")
    (cost,) = model.costs(make_points([92], 8), frontier)
    assert not modelled_row(model.study, cost, frontier, on_nodes=True).shares_cores


def test_it_goes_beyond_92_nodes_and_leaves_out_what_a_machine_does_not_have(model):
    frontier = load_machine("frontier")
    costs = extended(model, frontier)
    assert {92, 184} <= {cost.nodes for cost in costs} and costs[-1].nodes <= frontier.num_nodes
    rows = with_efficiency([modelled_row(model.study, cost, frontier, on_nodes=True) for cost in costs])
    assert rows[0].efficiency == 1 and all(before.efficiency > after.efficiency for before, after in pairwise(rows))
    assert [row.samples for row in rows] == [4 * row.ranks for row in rows]
    assert model.costs(make_points([10**6], 8), frontier) == []


def test_a_strong_study_is_extended_to_where_its_batch_can_be_shared_out(model):
    strong = replace(model, study=replace(model.study, mode="strong"), samples=128)
    assert [cost.nodes for cost in extended(strong, load_machine("frontier"))] == [1, 2, 4, 8, 16]
