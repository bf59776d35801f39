"""Runs with ZeRO 3, which fetches weights in the order that it has seen, from a checkpoint on."""

import os
import signal
import sys

import pytest

from tests.support.runs import pretrain, running, succeed

ZERO3 = "ds_configs/zero3.json"


@pytest.mark.parametrize("distance", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_steps_follow_a_validation_soon_after_a_resume(run_yaml, tmp_path, distance):
    config = run_yaml(train={"steps": 100_000, "micro_batch": 2, "validate_every": 100_000, "checkpoint_every": 3})
    with running(tmp_path, [sys.executable], config, ["--deepspeed_config", ZERO3]) as run:
        run.wait_for_steps(4)
        os.kill(run.process.pid, signal.SIGKILL)
        run.wait()
    step = int((tmp_path / "run" / "checkpoints" / "latest").read_text().removeprefix("step_"))
    ahead = [f"train.steps={step + distance + 2}", f"train.validate_every={step + distance}"]
    flags = [word for setting in ahead for word in ("--set", setting)]
    result = succeed(pretrain(config, "--resume", *flags, deepspeed_config=ZERO3))
    assert f"Going on after step {step}." in result.stdout
