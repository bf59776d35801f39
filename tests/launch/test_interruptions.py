"""Runs that a signal asks to leave, in real processes: they save and exit, and the next one gives the same losses."""

import json
import os
import signal
from pathlib import Path

import pytest

from tests.support.launchers import DEEPSPEED, PYTHON, SRUN, TORCHRUN
from tests.support.runs import NUM_STEPS, losses, pretrain, running, write_run
from tests.support.small_files import write_swe


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with data and the losses of an uninterrupted run."""
    folder = tmp_path_factory.mktemp("interruptions")
    write_swe(folder / "swe" / "2D_rdb_NA_NA.h5", 10)
    result = pretrain(write_run(folder / "whole", 1), *SHORTER)
    assert result.returncode == 0, result.stderr
    return folder, losses(folder / "whole")


# Steps are long enough for a signal to come between two of them.
SHORTER = ["--set", "train.accumulation=2"]


def one_rank(run, number):
    run.ranks()[-1].send_signal(number)


def every_process(run, number):
    os.killpg(run.process.pid, number)


CASES = {
    # Slurm and a terminal signal every process, those that read data too.
    "python_usr1": (PYTHON, signal.SIGUSR1, every_process, 75),
    "python_ctrl_c": (PYTHON, signal.SIGINT, every_process, 75),
    # What a launcher itself gets: campaign/test_signals.py. The exit code of torchrun is 1 whatever the ranks' is.
    "torchrun_usr1_to_one_rank": (TORCHRUN, signal.SIGUSR1, one_rank, 1),
    "srun_usr1": (SRUN, signal.SIGUSR1, every_process, 75),
    "deepspeed_usr1_to_one_rank": (DEEPSPEED, signal.SIGUSR1, one_rank, 75),
}


ALWAYS = ("torchrun_usr1_to_one_rank",)


@pytest.mark.parametrize("case", [c if c in ALWAYS else pytest.param(c, marks=pytest.mark.slow) for c in CASES])
def test_a_signal_saves_and_stops_the_run_and_the_next_one_has_the_same_losses(place, case):
    launcher, number, send, expected_code = CASES[case]
    base, whole = place
    folder = base / case
    config = write_run(folder, 1 if launcher is PYTHON else 2, workers=1 if launcher is PYTHON else 0)
    with running(folder, launcher, config, SHORTER) as run:
        run.wait_for_steps(3)
        ranks = run.ranks()
        assert len(ranks) == (1 if launcher is PYTHON else 2), run.text()
        send(run, number)
        assert run.wait(ranks) == expected_code, run.text()
    done = losses(folder)
    assert 3 <= len(done) < NUM_STEPS, run.text()
    checkpoints = folder / "run" / "checkpoints"
    assert (checkpoints / "latest").read_text() == f"step_{len(done):06d}"
    assert f"step {len(done)} of {NUM_STEPS} is saved" in run.text()
    result = pretrain(config, "--resume", *SHORTER, launcher=launcher)
    assert result.returncode == 0, result.stdout + result.stderr
    assert f"Going on after step {len(done)}" in result.stdout
    assert list(losses(folder)) == list(range(1, NUM_STEPS + 1))
    assert losses(folder) == pytest.approx(whole, rel=0 if launcher is PYTHON else 1e-4)


def test_a_run_says_by_its_exit_code_whether_its_steps_are_done(place):
    config = place[0] / "whole" / "run.yaml"
    assert pretrain(config, "--is_done").returncode == 0
    assert pretrain(config, "--is_done", "--set", "train.steps=99").returncode == 75


def valid_steps(folder: Path) -> list[int]:
    lines = (folder / "run" / "metrics.jsonl").read_text().splitlines()
    return [line["step"] for line in map(json.loads, lines) if "valid_nrmse" in line]


@pytest.mark.parametrize("launcher", [PYTHON, pytest.param(SRUN, marks=pytest.mark.slow)], ids=["alone", "two_ranks"])
def test_a_signal_ends_the_last_validation_early_and_the_next_run_repeats_it(tmp_path, launcher):
    write_swe(tmp_path / "swe" / "2D_rdb_NA_NA.h5", 100, 60)  # so that a signal reaches it on a busy machine, too
    folder = tmp_path / "validating"
    config = write_run(folder, 2)
    values = ("steps=2", "validate_every=2", "micro_batch=1", "accumulation=1")
    settings = [word for value in values for word in ("--set", f"train.{value}")]
    with running(folder, launcher, config, [*settings, "--set", "train.validation_windows=1000"]) as run:
        run.wait_for_steps(2)
        one_rank(run, signal.SIGUSR1)
        assert run.wait() == 75, run.text()
    assert valid_steps(folder) == [], "the last validation was done to its end"
    assert (folder / "run" / "checkpoints" / "latest").read_text() == "step_000002"
    result = pretrain(config, "--resume", *settings, launcher=launcher)
    assert result.returncode == 0, result.stdout + result.stderr
    assert valid_steps(folder) == [2] and list(losses(folder)) == [1, 2]
