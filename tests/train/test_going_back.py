"""Runs that go on from an earlier checkpoint, or are refused to, and a model that is taken from one.

Runs with ZeRO 3, which fetches weights in the order that it has seen, from a checkpoint on.
"""

import os
import shutil
import signal
import sys

import pytest

from tests.support.runs import fail, pretrain, running, small_run, succeed


@pytest.fixture(scope="module")
def of_four_steps(tmp_path_factory):
    config = small_run(tmp_path_factory.mktemp("run"))(train={"steps": 4, "keep_checkpoints": 3})
    succeed(pretrain(config))
    return config


@pytest.fixture
def run(of_four_steps, tmp_path):
    shutil.copytree(of_four_steps.parent / "run", tmp_path / "run")
    return tmp_path / "run"


def texts(run):
    return {path.name: path.read_bytes() for path in run.iterdir() if path.is_file() and path.name != "matey.lock"}


def test_a_run_that_may_not_go_on_is_left_as_it_was(of_four_steps, run):
    before = texts(run)
    changed = (f"output.dir={run}", "train.micro_batch=2", "train.steps=6")
    flags = [item for setting in changed for item in ("--set", setting)]
    fail(pretrain(of_four_steps, "--resume", *flags, deepspeed_config="ds_configs/zero3.json"), "with ZeRO 3")
    apart = ("--set", f"output.dir={run}", "--set", "train.groups={cells: {learning_rate: 0.01}}")
    fail(pretrain(of_four_steps, "--resume", *apart), "was saved in groups of", "train.groups", "--to universal")
    assert texts(run) == before


ZERO3 = "ds_configs/zero3.json"


def test_steps_follow_a_validation_soon_after_a_resume(run_yaml, tmp_path):
    config = run_yaml(train={"steps": 100_000, "micro_batch": 2, "validate_every": 100_000, "checkpoint_every": 3})
    with running(tmp_path, [sys.executable], config, ["--deepspeed_config", ZERO3]) as run:
        run.wait_for_steps(4)
        os.kill(run.process.pid, signal.SIGKILL)
        run.wait()
    step = int((tmp_path / "run" / "checkpoints" / "latest").read_text().removeprefix("step_"))
    ahead = [f"train.steps={step + 3}", f"train.validate_every={step + 1}"]
    flags = [word for setting in ahead for word in ("--set", setting)]
    result = succeed(pretrain(config, "--resume", *flags, deepspeed_config=ZERO3))
    assert f"Going on after step {step}." in result.stdout
