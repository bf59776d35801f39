"""Two runs in one folder, and saves that were cut off, in real runs."""

import json
import signal
import sys

import pytest

from tests.support.programs import TORCHRUN, cases_of, start
from tests.support.runs import fail, pretrain, running, succeed

MANY = ["--set", "train.steps=100000", "--set", "train.validate_every=100000", "--set", "train.checkpoint_every=3"]


def entries(folder):
    return sorted(str(entry.relative_to(folder)) for entry in (*folder.iterdir(), *(folder / "run").iterdir()))


def cut_off(folder):
    """Write what a killed rank of another number and ZeRO stage leaves behind."""
    folder.mkdir(parents=True)
    for shard in ("zero_pp_rank_1_mp_rank_00_model_states.pt", "ema_rank_00001.safetensors"):
        (folder / shard).write_text("cut off")


@pytest.mark.parametrize(
    "launcher", [[sys.executable], pytest.param(TORCHRUN, marks=pytest.mark.slow)], ids=["one_process", "two_ranks"]
)
def test_a_second_run_is_refused_and_leaves_the_folder_alone_until_the_first_ends(run_yaml, tmp_path, launcher):
    config = run_yaml()
    with running(tmp_path, launcher, config, MANY) as run:
        run.wait_for_steps(4)
        (holder,) = {json.loads((tmp_path / "run" / "matey.lock").read_text())["process"]}
        before = entries(tmp_path)
        for flags in ([], ["--resume"]):
            result = pretrain(config, *flags, launcher=launcher)
            words = [f"process {holder} on", "trains there since", f"kill {holder}", "choose another output.dir"]
            if launcher == [sys.executable]:
                fail(result, *words)
            else:  # torchrun exits with 1 whatever the ranks do
                said = [line for line in result.stderr.splitlines() if "error: " in line and line.startswith("[rank ")]
                assert result.returncode == 1 and len(said) == 1 and all(word in said[0] for word in words), (
                    result.stderr
                )
        assert entries(tmp_path) == before and run.process.poll() is None
        for process in run.ranks():
            process.send_signal(signal.SIGKILL)
        run.wait()
    latest = (tmp_path / "run" / "checkpoints" / "latest").read_text()
    step = int(latest.removeprefix("step_"))
    result = succeed(pretrain(config, "--resume", "--set", f"train.steps={step + 1}", launcher=launcher))
    assert f"Going on after step {step}." in result.stdout
    assert (tmp_path / "run" / "matey.lock").read_text() == ""


def test_a_run_that_finds_only_a_partial_save_says_so_and_starts_at_the_first_step(run_yaml, tmp_path):
    checkpoints = tmp_path / "run" / "checkpoints"
    for name in ("step_000002.new", "step_000004.new"):
        cut_off(checkpoints / name)
    (tmp_path / "run" / "matey.lock").touch()
    config = run_yaml(train={"steps": 2})
    result = succeed(pretrain(config, "--resume"))
    assert "holds no checkpoint yet: training starts at its first step" in result.stdout
    assert f"was moved to {tmp_path / 'run.1'}." in result.stdout and "would have gone on" not in result.stdout
    assert (tmp_path / "run.1" / "checkpoints" / "step_000004.new").is_dir()  # moved aside, not removed
    # Again in the place of the whole step, as after going back to an earlier one.
    for name in ("step_000004", "step_000004.new", "step_000006.new"):
        cut_off(checkpoints / name)
    succeed(pretrain(run_yaml(train={"steps": 4}), "--resume"))
    assert sorted(path.name for path in checkpoints.glob("step_*")) == ["step_000002", "step_000004"]
    shards = {path.name for path in (checkpoints / "step_000004").iterdir()}
    assert shards == {"mp_rank_00_model_states.pt", "zero_pp_rank_0_mp_rank_00_optim_states.pt"}
    assert not (tmp_path / "run.2").exists()


@pytest.fixture(scope="module")
def lost_near_a_save(tmp_path_factory):
    """What a run lost near its third save, and what it left."""
    root = tmp_path_factory.mktemp("lost")
    cases = cases_of(start([sys.executable, "-m", "tests.train.lost_folder", root]))
    return root, {each["moment"]: each for each in cases}


def test_a_run_whose_reading_process_is_killed_in_a_save_saves_first(lost_near_a_save):
    case = lost_near_a_save[1]["its reading process killed"]
    assert (case["entries"], case["latest"]) == (["latest", "step_000002", "step_000003"], "step_000003")
    assert "DataLoader worker" in case["refusal"] and "Could not save" not in case["refusal"]


def test_a_run_that_loses_its_folder_near_a_save_renames_and_removes_nothing_more(lost_near_a_save):
    two = ["latest", "step_000001", "step_000002"]
    expected = {
        "while it writes": ([*two, "step_000003.new"], "step_000002"),
        "as latest moves": ([*two, "step_000003"], "step_000003"),
        "moved": (two, "step_000002"),
        "its lock removed": (two, "step_000002"),
    }
    root, cases = lost_near_a_save
    assert {moment: (cases[moment]["entries"], cases[moment]["latest"]) for moment in expected} == expected
    assert all("is no longer this run's" in cases[moment]["refusal"] for moment in expected)
    assert not (root / "moved").exists() and not (root / "its lock removed" / "matey.lock").exists()
