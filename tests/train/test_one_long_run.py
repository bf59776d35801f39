"""A run on a single long simulation, cut in time: it trains, goes on, and is evaluated on frames that it has not seen."""

import json
import sys

import numpy as np
import pytest
import yaml

from matey.config import ConfigError, load_config
from matey.data import DataError
from matey.train.run_data import open_data, validation_windows
from tests.support.programs import start
from tests.support.runs import fail, pretrain, succeed

DESCRIPTION = {
    "system": "advected",
    "axes": ["time", "y", "x"],
    "fields": {"tracer": {}},
    "spacing": {"y": 1, "x": 1},
    "time_step": 0.5,
    "boundary": {"y": "periodic", "x": "periodic"},
}


def write_long_run(path, num_frames):
    t, y, x = np.ogrid[:num_frames, :16, :16]
    np.save(path, np.sin(2 * np.pi * (x - 0.7 * t) / 16) + np.cos(2 * np.pi * (y + 0.3 * t * (1 + t / 100)) / 16))


@pytest.fixture
def long_run(run_yaml, tmp_path):
    """A function that writes the YAML of a run on 60 frames of one simulation, with other keys of its data."""
    (tmp_path / "les").mkdir()
    write_long_run(tmp_path / "les" / "run.npy", 60)
    (tmp_path / "les" / "matey.yaml").write_text(yaml.safe_dump(DESCRIPTION))

    def write(split_by="time", path=tmp_path / "les" / "run.npy", **data):
        sets = [{"path": str(path), **({"split_by": split_by} if split_by else {})}]
        return run_yaml(data={"sets": sets, "split": [0.7, 0.1, 0.2], **data})

    return write


def evaluate(tmp_path, *more):
    out = tmp_path / "evaluated"
    command = ["launch/evaluate.py", "--checkpoint", tmp_path / "run", "--out", out, "--leads", "1", "--rollout", "2"]
    return start([sys.executable, *command, *more]), out


def test_one_simulation_is_trained_on_gone_on_with_and_evaluated_on_its_last_frames(long_run, tmp_path):
    config = long_run()
    told = succeed(pretrain(config, "--set", "train.steps=2")).stdout
    assert "1/1/1 train/valid/test blocks of a trajectory cut in time, frames 0 to 41, 42 to 47, 48 to 59" in told
    told = succeed(pretrain(config, "--resume")).stdout
    assert "Going on after step 2" in told and "Changed since" not in told
    result, out = evaluate(tmp_path)
    told = succeed(result).stdout
    assert "begin exactly as" not in told
    records = json.loads((out / "metrics.json").read_text())
    assert records and all("frames 48 to 59" in json.dumps(record) for record in records), records[0]
    data = ("--data", tmp_path / "les" / "run.npy")
    fail(evaluate(tmp_path, *data)[0], "trained on 1 of these 1 trajectories", "--split test")
    result, out = evaluate(tmp_path, *data, "--split", "test")
    succeed(result)
    assert json.loads((out / "metrics.json").read_text()) == records


def test_a_simulation_that_went_on_meanwhile_does_not_train_on_what_was_held_out(long_run, tmp_path):
    config = long_run()
    succeed(pretrain(config, "--set", "train.steps=2"))
    write_long_run(tmp_path / "les" / "run.npy", 80)
    for more in ((), ("--set", "data.changed=keep")):
        fail(pretrain(config, "--resume", *more), "'run, frames 0 to 41'", "stays cut in time as it was")
    fail(evaluate(tmp_path)[0], "The test part of the run's data is not what it was", "--data and --split test.")
    result, out = evaluate(tmp_path, "--data", tmp_path / "les" / "run.npy", "--split", "test")
    succeed(result)
    assert "frames 48 to 59" in (out / "metrics.json").read_text()
    moved = (tmp_path / "les").rename(tmp_path / "moved") / "run.npy"
    elsewhere = long_run(path=moved)
    fail(pretrain(elsewhere, "--resume", "--set", "data.changed=keep"), "'run, frames 0 to 41'", "stays cut in time as")
    again, out = evaluate(tmp_path, "--data", moved, "--split", "test")
    succeed(again)
    assert "frames 48 to 59" in (out / "metrics.json").read_text()
    moved.parent.rename(tmp_path / "les")
    write_long_run(tmp_path / "les" / "run.npy", 60)
    fail(pretrain(long_run(split_by=None), "--resume", "--set", "data.changed=keep"), "stays cut in time as it was")


def test_one_simulation_that_is_not_cut_leads_to_the_key_that_cuts_it(long_run):
    with pytest.raises(DataError, match="need at least 3 trajectories, .* got 1; .* by split_by: time beside the path"):
        open_data(load_config(long_run(split_by=None)))
    run = load_config(long_run(split_by=None, split=[1, 0, 0]))
    with pytest.raises(ConfigError, match="leaves no trajectory of advected to validate on .* split_by: time"):
        validation_windows(run, open_data(run))


def test_a_part_too_short_for_a_window_is_refused_before_training(long_run):
    run = load_config(long_run(history=6))
    with pytest.raises(
        DataError, match="frames 42 to 47: expected at least 7 frames.* give its part more of data.split"
    ):
        validation_windows(run, open_data(run))


def test_a_test_part_too_short_for_a_forecast_is_told_before_training(long_run):
    run = load_config(long_run(), ["data.split=[0.8, 0.19, 0.01]"])
    (note,) = open_data(run).notes
    assert "What is held out cannot be evaluated: " in note and note.endswith(
        "ask for fewer or give its part more of data.split."
    )
    assert "frames 59 to 59: expected at least 3 frames, 2 of history and 1 to predict, got 1" in note


def test_one_simulation_in_a_set_that_is_cut_and_in_a_whole_one_is_refused(long_run, tmp_path):
    path = str(tmp_path / "les" / "run.npy")
    sets = [{"path": path}, {"path": str(tmp_path / "les"), "split_by": "time"}]
    with pytest.raises(ConfigError, match=f"{path} is in a set that split_by: time cuts and in one that stays whole"):
        open_data(load_config(long_run(), [f"data.sets={json.dumps(sets)}"]))


def test_split_by_where_it_is_not_looked_for_leads_to_the_data_set(long_run):
    with pytest.raises(ConfigError, match=r"unknown key 'data.split_by'. Did you mean 'data.sets.split_by'\?"):
        load_config(long_run(), ["data.split_by=time"])
