"""The study of data efficiency: its points and their scores."""

import numpy as np
import pytest

from matey.config import DataSection, DataSet, load_config
from matey.data.splits import split_trajectories
from matey.evaluate.records import Record, write_records
from matey.studies.data_efficiency.points import (
    Point,
    check_data,
    cost_of_run,
    points_of,
    scores,
    trajectories_for,
    with_those_in,
)
from matey.studies.data_efficiency.scales import LAPTOP, SCALES, STARTS
from matey.studies.folder import StudyError
from tests.support.described_files import describe, flow
from tests.support.paths import ROOT


def test_points_from_pretrained_weights_come_first_and_each_has_a_name_of_its_own():
    points = points_of(["random", "pretrained"], ["prepost", "all"], [1, 6], 3)
    assert len({point.name for point in points}) == len(points) == 24
    assert [point.start for point in points] == ["pretrained"] * 12 + ["random"] * 12
    assert points[0].name == "pretrained-prepost-1-0"


def test_points_of_other_calls_are_found_by_their_folders(tmp_path):
    every = points_of(STARTS, ["prepost", "all"], [1, 6, 24], 3)
    for point in every:
        (tmp_path / point.name).mkdir()
    for other in ("notes", "pretrained-all-1-0.bak"):
        (tmp_path / other).mkdir()
    assert {*with_those_in(tmp_path, every[:1])} == {*every} and len(with_those_in(tmp_path, every)) == len(every)
    added = points_of(["pretrained"], ["lora"], [12], 1)
    assert [each.name for each in with_those_in(tmp_path, added)][:8:7] == ["pretrained-all-1-0", "pretrained-all-1-1"]
    assert len(with_those_in(tmp_path, added)) == len(every) + 1


def test_a_peer_is_trained_once_on_each_number_of_trajectories_whatever_the_modes():
    points = points_of(["stencil", "random", "U-Net"], ["prepost", "all"], [1, 6], 2)
    assert [point.start for point in points] == ["random"] * 8 + ["stencil"] * 4 + ["U-Net"] * 4
    assert [point.name for point in points[8:10]] == ["stencil-peer-1-0", "stencil-peer-6-0"]


@pytest.mark.parametrize(("size", "needed"), [(1, 3), (16, 20), (24, 30), (48, 60), (96, 120), (25, 31)])
def test_so_many_trajectories_are_needed_to_train_on_a_number_of_them(size, needed):
    assert trajectories_for(size, DataSection(sets=(DataSet(path="data/thermals"),))) == needed
    left = [len(split_trajectories(number, (0.8, 0.1, 0.1), 0).train) for number in (needed - 1, needed) if number > 2]
    assert left[-1] >= size and (len(left) == 1 or left[0] < size)


def test_a_set_that_is_cut_in_time_has_a_block_to_train_on_for_each_trajectory(tmp_path):
    np.save(tmp_path / "les.npy", np.random.default_rng(0).normal(size=(60, 8, 8)))
    describe(tmp_path, flow(ends="periodic", system="les", fields={"tracer": {}}))
    data = DataSection(sets=(DataSet(path="les.npy", split_by="time"),), history=2, lead_max=3)
    assert check_data(data, tmp_path, 1) == 3
    with pytest.raises(StudyError, match="les.npy holds 3 blocks, 1 of them .* asks for 2, which needs 2 trajectories"):
        check_data(data, tmp_path, 2)
    with pytest.raises(StudyError, match="trajectory of 6 frames; a history of 4 and the lead 3"):
        check_data(data.model_copy(update={"history": 4}), tmp_path, 1)


def test_a_point_has_a_row_for_each_forecast_over_all_fields_with_its_physics(tmp_path):
    def record(field, kind, lead, physics=None):
        return Record(
            "thermals",
            field,
            kind,
            lead,
            {"nrmse": 0.1 * lead},
            {"nrmse": 1.0},
            9,
            extrapolation_nrmse=1.0,
            physics=physics or {},
        )

    records = [record("all", "lead", 1), record("density", "lead", 1), record("all", "lead", 5)]
    records += [record("all", "rollout", step, {"mass": 0.01 * step}) for step in (1, 2)]
    write_records(records, tmp_path / "metrics.json")
    rows = scores(Point("random", "all", 6, 2), tmp_path / "metrics.json", {"seconds": 75.0, "windows": 3200})
    assert {(row["seconds"], row["windows"]) for row in rows} == {(75.0, 3200)}
    assert [(row["forecast"], row["nrmse"]) for row in rows] == [("lead 1", 0.1), ("lead 5", 0.5), ("rollout 2", 0.2)]
    assert rows[0]["trajectories"] == 6 and rows[0]["seed"] == 2 and rows[2]["mass"] == 0.02


def test_the_cost_of_a_run_is_that_of_its_steps_and_its_windows_those_of_all_ranks():
    run = load_config(ROOT / LAPTOP.config, LAPTOP.settings)
    log = [
        {"step": step, "cpu_seconds": seconds, "seconds": 0.1} for step, seconds in ((1, 0.2), (2, 0.25), (200, 0.6))
    ]
    assert cost_of_run(run, log, 2) == {"seconds": 200 * 0.25, "windows": 6400}
    ended_early = [*log[:2], {"step": 150, "valid_nrmse": 1}]
    assert cost_of_run(run, ended_early, 2) == {"seconds": pytest.approx(150 * 0.225), "windows": 4800}
    rolled_out = run.model_copy(update={"train": run.train.model_copy(update={"unroll": 4})})
    assert cost_of_run(rolled_out, log, 2)["seconds"] == pytest.approx(200 * 0.35)


def test_where_costs_are_cpu_seconds_fine_tunings_have_one_thread_as_peers_do():
    runs = [load_config(ROOT / each.config, each.settings) for each in SCALES.values() if each.simulates]
    assert len(runs) == 2 and {run.parallel.threads for run in runs} == {1}
