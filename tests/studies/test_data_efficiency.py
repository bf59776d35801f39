"""The study of data efficiency."""

import numpy as np
import pytest

from matey.config import DataSection, DataSet, load_config
from matey.data.splits import split_trajectories
from matey.studies.cases import FINETUNE_SCALES, LAPTOP, StudyError
from matey.studies.data_efficiency import (
    COSTS,
    DataEfficiencyStudy,
    check_data,
    cost_of_run,
    points_of,
    trajectories_for,
)
from tests.support.described_files import describe, flow
from tests.support.paths import ROOT


def test_a_peer_is_trained_once_on_each_number_of_trajectories_whatever_the_modes():
    points = points_of(["stencil", "random", "pretrained"], ["prepost", "all"], [1, 6], 2)
    assert [point.start for point in points] == ["pretrained"] * 8 + ["random"] * 8 + ["stencil"] * 4
    assert [point.name for point in points[16:18]] == ["stencil-peer-1-0", "stencil-peer-6-0"]


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
    with pytest.raises(StudyError, match="les.npy holds 3 .* blocks, 1 of them .* asks for 2, which needs 2 traj"):
        check_data(data, tmp_path, 2)
    with pytest.raises(StudyError, match="trajectory of 6 frames; a history of 4 and the lead 3"):
        check_data(data.model_copy(update={"history": 4}), tmp_path, 1)


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
    runs = [load_config(ROOT / each.config, each.settings) for each in FINETUNE_SCALES.values() if each.simulates]
    assert len(runs) == 2 and {run.parallel.threads for run in runs} == {1}


def test_fine_tunings_are_planned_with_the_pretrained_models_network(tmp_path):
    points = points_of(["pretrained", "stencil"], ["prepost"], [1, 96], 3)
    engine = str(ROOT / "ds_configs" / "frontier_zero1.json")
    how = {"deepspeed_config": engine, "machine": "frontier", "ranks": 64}
    box = str(ROOT / "models" / "matey-micro")
    of = DataEfficiencyStudy(tmp_path, tmp_path / "out", "thermals", "paper", points, box, **how)
    head, _, _, line, last, peers = of.plan().splitlines()
    assert "64 ranks on 8 nodes, 256 samples" in head and line.split()[:2] == ["prepost", "6"]
    assert last.startswith("6 trainings, ") and peers == "And 6 peers, 6 hours on one CPU or GPU."


def test_pretrained_starts_stand_over_random_ones_on_as_many_trajectories(tmp_path):
    study = DataEfficiencyStudy(ROOT, tmp_path, "thermals", "tiny", points_of(["random"], ["all"], [1, 6], 1))
    rows = [
        {"series": series, "label": label, "seed": seed, "system": "thermals", "forecast": "lead 1"}
        | {"ratio": ratio * (1 + seed) / int(label)}
        | dict.fromkeys(COSTS, 70.0)
        for series, ratio in (("pretrained, all", 0.1), ("random, all", 0.2), ("stencil", 0.3))
        for label in ("1", "6")
        for seed in (0, 1)
    ]
    errors, over = study.text(rows).split("\n\n")
    assert len(errors.splitlines()) == 2 + 6
    lines = over.splitlines()[2:]
    assert [line.split()[:3] + line.split()[-3:] for line in lines] == [
        ["random,", "all,", size, "0.50", "±", "0.00"] for size in ("1", "6")
    ]
    assert len(study.figure(rows).axes) == 1
