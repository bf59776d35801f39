"""Runs that a signal asks to leave, in real processes: they save and exit, and the next one gives the same losses."""

import os
import signal

import pytest

from tests.support.programs import PYTHON, TORCHRUN
from tests.support.runs import NUM_STEPS, losses, metrics, pretrain, running, succeed, write_run
from tests.support.small_files import write_swe


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with data and the losses of an uninterrupted run."""
    folder = tmp_path_factory.mktemp("interruptions")
    write_swe(folder / "swe" / "2D_rdb_NA_NA.h5", 10)
    succeed(pretrain(write_run(folder / "whole", 1), *SHORTER))
    return folder, losses(folder / "whole")


# Steps are long enough for a signal to come between two of them.
SHORTER = ["--set", "train.accumulation=2"]
CASES = {
    # Slurm and a terminal signal every process, those that read data too.
    "python_usr1": (PYTHON, signal.SIGUSR1, 75),
    "python_ctrl_c": (PYTHON, signal.SIGINT, 75),
    # One rank of two. What a launcher itself gets: campaign/test_signals.py. Its exit code is 1 whatever the ranks' is.
    "torchrun_usr1": (TORCHRUN, signal.SIGUSR1, 1),
}


@pytest.mark.parametrize("case", ["python_usr1", *(pytest.param(c, marks=pytest.mark.slow) for c in [*CASES][1:])])
def test_a_signal_saves_and_stops_the_run_and_the_next_one_has_the_same_losses(place, case):
    launcher, number, expected_code = CASES[case]
    base, whole = place
    folder, num_ranks = base / case, 1 if launcher is PYTHON else 2
    config = write_run(folder, num_ranks, workers=2 - num_ranks)
    with running(folder, launcher, config, SHORTER) as run:
        run.wait_for_steps(3)
        ranks = run.ranks()
        assert len(ranks) == num_ranks, run.text()
        os.killpg(run.process.pid, number) if num_ranks == 1 else ranks[-1].send_signal(number)
        assert run.wait(ranks) == expected_code, run.text()
    done = losses(folder)
    assert 3 <= len(done) < NUM_STEPS, run.text()
    assert (folder / "run" / "checkpoints" / "latest").read_text() == f"step_{len(done):06d}"
    assert f"step {len(done)} of {NUM_STEPS} is saved" in run.text()
    result = succeed(pretrain(config, "--resume", *SHORTER, launcher=launcher))
    assert f"Going on after step {len(done)}" in result.stdout
    assert list(losses(folder)) == list(range(1, NUM_STEPS + 1))
    assert losses(folder) == pytest.approx(whole, rel=0 if launcher is PYTHON else 1e-4)


def test_a_run_says_by_its_exit_code_whether_its_steps_are_done(place):
    config = place[0] / "whole" / "run.yaml"
    assert pretrain(config, "--is_done").returncode == 0
    assert pretrain(config, "--is_done", "--set", "train.steps=99").returncode == 75


def test_a_signal_ends_the_last_validation_early_and_the_next_run_repeats_it(tmp_path):
    write_swe(tmp_path / "swe" / "2D_rdb_NA_NA.h5", 100, 60)  # so that a signal reaches it on a busy machine, too
    folder = tmp_path / "validating"
    config = write_run(folder, 2)
    values = ("steps=2", "validate_every=2", "micro_batch=1", "accumulation=1")
    settings = [word for value in values for word in ("--set", f"train.{value}")]
    with running(folder, PYTHON, config, [*settings, "--set", "train.validation_windows=1000"]) as run:
        run.wait_for_steps(2)
        run.ranks()[0].send_signal(signal.SIGUSR1)
        assert run.wait() == 75, run.text()
    assert metrics(folder / "run", "valid_vrmse") == {}, "the last validation was done to its end"
    assert (folder / "run" / "checkpoints" / "latest").read_text() == "step_000002"
    succeed(pretrain(config, "--resume", *settings))
    assert [*metrics(folder / "run", "valid_vrmse")] == [2] and list(losses(folder)) == [1, 2]
