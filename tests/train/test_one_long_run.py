"""A run on a single long simulation, cut in time: it trains, goes on, and is evaluated on frames that it has not seen."""

import json
import shutil
import sys

import numpy as np
import pytest

from matey.checkpoints.run_files import RECORDS, SPLIT
from matey.config import ConfigError, load_config
from matey.data import DataError
from matey.train.run_data import open_data, validation_windows
from tests.support.described_files import describe, flow
from tests.support.programs import start
from tests.support.runs import pretrain, small_run, succeed


def write_long_run(path, num_frames):
    t, y, x = np.ogrid[:num_frames, :16, :16]
    np.save(path, np.sin(2 * np.pi * (x - 0.7 * t) / 16) + np.cos(2 * np.pi * (y + 0.3 * t * (1 + t / 100)) / 16))


def long_run_in(folder, write_yaml):
    """Write 60 frames of one simulation and return a function that writes the YAML of a run on them, with other data keys."""
    (folder / "les").mkdir()
    write_long_run(folder / "les" / "run.npy", 60)
    describe(folder / "les", flow(ends="periodic", system="advected", fields={"tracer": {}}))

    def write(split_by="time", path=folder / "les" / "run.npy", **data):
        sets = [{"path": str(path), **({"split_by": split_by} if split_by else {})}]
        return write_yaml(data={"sets": sets, "split": [0.7, 0.1, 0.2], **data})

    return write


@pytest.fixture
def long_run(run_yaml, tmp_path):
    return long_run_in(tmp_path, run_yaml)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """What a run of two steps on it printed, and its folder."""
    folder = tmp_path_factory.mktemp("trained")
    config = long_run_in(folder, small_run(folder))()
    return succeed(pretrain(config, "--set", "train.steps=2")).stdout, folder


@pytest.fixture
def gone_on(trained, tmp_path):
    """A copy of the folder in which it trained, under its own name."""
    folder = shutil.copytree(trained[1], tmp_path / "gone_on")
    for name in ("run.yaml", "run/config.yaml", f"run/{SPLIT}"):
        (folder / name).write_text((folder / name).read_text().replace(str(trained[1]), str(folder)))
    return folder


@pytest.fixture
def evaluate(run_here, without_page):
    """Return a function that evaluates the run of a folder here: exit status, standard error and the records' text."""

    def run(folder, *more):
        out = folder / "evaluated"
        how = ("--out", out, "--leads", "1", "--rollout", "2")
        status, _, error = run_here("launch/evaluate.py", "--checkpoint", folder / "run", *how, *more)
        return status, error, (out / RECORDS).read_text() if status == 0 else ""

    return run


def refuse_to_go_on(config, words, *settings):
    with pytest.raises(ConfigError, match=words):
        open_data(load_config(config, ["output.resume=auto", *settings]))


def test_one_simulation_is_trained_on_gone_on_with_and_evaluated_on_its_last_frames(trained, gone_on, evaluate):
    assert "1/1/1 train/valid/test blocks of trajectories cut in time" in trained[0]
    told = succeed(pretrain(gone_on / "run.yaml", "--resume")).stdout
    assert "Going on after step 2" in told and "Changed since" not in told
    command = [
        "launch/evaluate.py",
        "--checkpoint",
        gone_on / "run",
        "--out",
        gone_on,
        "--leads",
        "1",
        "--rollout",
        "2",
    ]
    assert "begin exactly as" not in succeed(start([sys.executable, *command])).stdout
    records = json.loads((gone_on / RECORDS).read_text())
    assert records and all("frames 48 to 59" in json.dumps(record) for record in records), records[0]
    data = ("--data", gone_on / "les" / "run.npy")
    status, error, _ = evaluate(gone_on, *data)
    assert status == 2 and "trained on 1 of these 1 trajectories" in error and "--split test" in error
    status, error, text = evaluate(gone_on, *data, "--split", "test")
    assert status == 0 and json.loads(text) == records, error


def test_a_simulation_that_went_on_meanwhile_does_not_train_on_what_was_held_out(gone_on, evaluate):
    config, keep, les = gone_on / "run.yaml", "data.changed=keep", gone_on / "les"
    write_long_run(les / "run.npy", 80)
    for settings in ((), (keep,)):
        refuse_to_go_on(config, "changed: .*run.npy. Restore them, and split_by; or, where nothing is cut", *settings)
    status, error, _ = evaluate(gone_on)
    assert status == 2 and "The test part of the run's data is not what it was" in error
    assert "--data and --split test." in error
    status, error, text = evaluate(gone_on, "--data", les / "run.npy", "--split", "test")
    assert status == 0 and "frames 48 to 59" in text, error
    moved = les.rename(gone_on / "moved") / "run.npy"
    elsewhere = f"data.sets=[{{path: {moved}, split_by: time}}]"
    refuse_to_go_on(config, "changed: .*run.npy. Restore them", elsewhere, keep)
    moved.parent.rename(les)
    write_long_run(les / "run.npy", 60)
    refuse_to_go_on(config, "Restore them, and split_by", f"data.sets=[{{path: {les / 'run.npy'}}}]", keep)


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


def test_one_simulation_in_a_set_that_is_cut_and_in_a_whole_one_is_refused(long_run, tmp_path):
    path = str(tmp_path / "les" / "run.npy")
    sets = [{"path": path}, {"path": str(tmp_path / "les"), "split_by": "time"}]
    with pytest.raises(ConfigError, match=f"{path} is in a set that split_by: time cuts and in one that stays whole"):
        open_data(load_config(long_run(), [f"data.sets={json.dumps(sets)}"]))
