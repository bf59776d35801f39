"""Ranks whose launcher is killed, and processes that read data for a run that fails: none outlives the run for long."""

import os
import select
import signal
import sys
import time

import psutil
import pytest

from tests.support.programs import DEEPSPEED, MPIRUN, PYTHON, TORCHRUN, clean_environment, kill, preloaded
from tests.support.runs import losses, running, write_run
from tests.support.small_files import write_swe

MANY = ["--set", "train.steps=100000"]


def outermost(run):
    return psutil.Process(run.process.pid)


def parent_of_the_ranks(run):
    return run.ranks()[0].parent()


# Launcher, which process of it is signalled, how, and whether its ranks can save; the other signals: campaign/test_signals.py.
CASES = {
    "deepspeed_kill": (DEEPSPEED, outermost, signal.SIGKILL, True),
    "deepspeed_inner_kill": (DEEPSPEED, parent_of_the_ranks, signal.SIGKILL, True),
    "torchrun_kill": (TORCHRUN, outermost, signal.SIGKILL, True),
    # Open MPI's library ends a process that has lost contact with its launcher.
    "mpirun_kill": (MPIRUN, outermost, signal.SIGKILL, False),
}


@pytest.fixture
def folder(tmp_path):
    write_swe(tmp_path / "swe" / "2D_rdb_NA_NA.h5", 10)
    return tmp_path / "case"


# That ranks end with their launcher is shown sooner by parallel/test_failure.py, and that they save by the test of a terminal.
@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_ranks_whose_launcher_is_killed_leave_and_save_where_they_can(folder, case):
    launcher, victim, number, can_save = CASES[case]
    config = write_run(folder, 2)
    with running(folder, launcher, config, MANY) as run:
        run.wait_for_steps(3)
        ranks = run.ranks()
        assert len(ranks) == 2
        victim(run).send_signal(number)
        _, alive = psutil.wait_procs(ranks, timeout=30)
        assert not alive, run.text()
    if can_save:
        done = len(losses(folder))
        assert (folder / "run" / "checkpoints" / "latest").read_text() == f"step_{done:06d}", run.text()


def test_a_terminal_that_is_closed_lets_the_run_save_and_leave(folder):
    flags = ["--deepspeed_config", "ds_configs/zero1.json", "--config", str(write_run(folder, 1))]
    here, there = os.openpty()
    with os.fdopen(there, "wb", buffering=0) as there:
        command = [sys.executable, "launch/pretrain.py", *flags, *MANY]
        process = preloaded().start(command, clean_environment(), there, there, terminal=there)
    try:
        deadline = time.monotonic() + 120
        while len(losses(folder)) < 3:
            assert process.poll() is None and time.monotonic() < deadline
            if select.select([here], [], [], 0.1)[0]:
                os.read(here, 4096)
        os.close(here)
        assert process.wait(120) == 75
    finally:
        kill(process)
    done = len(losses(folder))
    assert (folder / "run" / "checkpoints" / "latest").read_text() == f"step_{done:06d}"


@pytest.mark.slow
def test_a_run_whose_reading_process_is_killed_ends_and_leaves_no_process_behind(folder):
    config = write_run(folder, 1, workers=2)
    with running(folder, PYTHON, config, MANY) as run:
        run.wait_for_steps(3)
        workers = psutil.Process(run.process.pid).children(recursive=True)
        assert len(workers) == 2
        workers[0].kill()
        assert run.wait(workers, timeout=30) == 1
    text = run.text()
    assert "A process that reads data (data.workers) has ended, perhaps killed for want of memory" in text, text
    assert "DataLoader worker (pid" in text and "Traceback" not in text, text
