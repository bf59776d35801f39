"""What a job says and how soon it ends when one of its ranks fails, in real processes under every launcher."""

import os
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import psutil
import pytest

from tests.support.programs import (
    LAUNCHERS,
    environments,
    held_back,
    in_background,
    kill,
    preloaded,
    start,
    start_ranks,
)

SCRIPT = "tests/parallel/one_rank_fails.py"


def launchers(*always):
    """All launchers; those not named run with the slow tests."""
    return [name if name in always else pytest.param(name, marks=pytest.mark.slow) for name in LAUNCHERS]


def under(launcher, *arguments):
    """The command that starts the script by a launcher."""
    return [*LAUNCHERS[launcher], *["--no_local_rank"] * (launcher == "deepspeed"), SCRIPT, *arguments]


def end(launcher, way, timeout=300):
    """Run the script, which has 120 s to end; return what it printed on standard error."""
    mark = f"{launcher}_started_by_{os.getpid()}"  # the same may run for another launcher
    result = start(under(launcher, way, timeout, mark), timeout=120)
    assert "failing now" in result.stdout and result.returncode != 0, result.stdout + result.stderr
    assert [process for process in psutil.process_iter(["cmdline"]) if mark in (process.info["cmdline"] or [])] == []
    return result.stderr


@pytest.mark.parametrize("launcher", launchers("torchrun"))
def test_the_failed_ranks_traceback_comes_first_and_the_job_ends(launcher):
    text = end(launcher, "raises")
    first = text.index("[rank 1] Traceback")
    assert "[rank 1] KeyError: 'water_height'" in text and "one_rank_fails.py" in text
    assert "Traceback" not in text[:first] and "Lost another rank" not in text[:first], text


@contextmanager
def running(tmp_path, of_ranks, *command):
    """Ranks without a launcher while the block lasts, and a function that returns all that they printed."""
    path = tmp_path / "said.txt"
    with path.open("wb") as said:
        ranks = [preloaded().start([sys.executable, *command], each, said, said) for each in of_ranks]
        try:
            yield ranks, path.read_text
        finally:
            for rank in ranks:
                kill(rank)


@pytest.mark.parametrize("way", ["is_refused", "meets_a_mistake"])
def test_a_rank_that_waits_or_forecasts_ends_with_the_code_of_one_that_failed(tmp_path, way):
    with running(tmp_path, environments(2), SCRIPT, way, "300") as (ranks, said):
        assert [rank.wait(120) for rank in ranks] == [2, 2], said()
        assert said().count("error: what rank 1 alone met") == 1 and "Traceback" not in said(), said()


@pytest.mark.parametrize("numbers", [(signal.SIGTERM, signal.SIGINT), (signal.SIGHUP, signal.SIGUSR1)])
def test_ranks_that_forecast_die_of_signals(tmp_path, numbers):
    with running(tmp_path, environments(2), SCRIPT, "forecasts", "300") as (ranks, said):
        wait_for(said, "is forecasting", 2)
        for rank, number in zip(ranks, numbers, strict=True):
            os.kill(rank.pid, number)
        assert [rank.wait(30) for rank in ranks] == [-number for number in numbers]


@pytest.mark.slow
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_ranks_that_forecast_end_with_their_launcher(tmp_path, launcher):
    path = tmp_path / "said.txt"
    with (
        path.open("w") as said,
        in_background(under(launcher, "forecasts", "300"), stdout=said, stderr=said) as process,
    ):
        wait_for(path.read_text, "is forecasting", 2)
        ranks = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        assert not psutil.wait_procs(ranks, timeout=30)[1], path.read_text()


def wait_for(read, word, count):
    """Wait until a text has a word so often."""
    deadline = time.monotonic() + 120
    while read().count(word) < count:
        assert time.monotonic() < deadline, read()
        time.sleep(0.05)


@pytest.mark.slow
def test_a_rank_whose_others_never_come_ends_when_asked_to_and_says_so(run_yaml, tmp_path):
    flags = ["--deepspeed_config", "ds_configs/zero1.json", "--config", str(run_yaml())]
    # Of two jobs one rank each: neither the one that answers the other nor the one that calls has ever met it.
    alone = [environments(2)[rank] for rank in range(2)]
    with running(tmp_path, alone, "launch/pretrain.py", *flags) as (ranks, said):
        until = time.monotonic() + 120
        for rank in ranks:
            while signal.SIGTERM not in held_back(rank.pid):
                assert time.monotonic() < until
                time.sleep(0.1)
            os.kill(rank.pid, signal.SIGTERM)
        assert [rank.wait(120) for rank in ranks] == [1, 1] and "Traceback" not in said(), said()
    asked = "Asked to end (SIGTERM) while it waited for other ranks, which did not come."
    assert f"[rank 0] {asked}" in said() and f"[rank 1] {asked}" in said(), said()


@pytest.mark.parametrize("launcher", launchers("mpirun"))
def test_a_killed_rank_ends_the_job_and_the_others_say_where(launcher):
    text = end(launcher, "is_killed")
    said = [line for line in text.splitlines() if "[rank 0]" in line]
    assert len(said) <= 1, text  # none where the launcher was faster
    if said:
        assert "Lost another rank" in said[0] and "sum_over_ranks (matey/parallel/collectives.py" in said[0]


# As on a node that differs.
MISLED = """
import os, runpy, sys
sys.argv = ["launch/pretrain.py", *sys.argv[1:], "--set", f"train.seed={os.environ['RANK']}"]
runpy.run_path("launch/pretrain.py", run_name="__main__")
"""


def test_what_ranks_do_not_agree_on_is_said_and_ends_the_job(run_yaml):
    result = start_ranks(2, "-c", MISLED, "--deepspeed_config", "ds_configs/zero1.json", "--config", run_yaml())
    assert result.returncode == 2 and "Rank 1 has the run's configuration" in result.stderr, result.stderr
    assert "Traceback" not in result.stderr, result.stderr


def test_a_mistake_that_all_ranks_meet_is_said_once_and_ends_with_code_2(run_yaml):
    command = ["launch/pretrain.py", "--deepspeed_config", "ds_configs/zero1.json", "--config", run_yaml()]
    result = start([*LAUNCHERS["mpirun"], *command, "--set", "data.history=50"], timeout=120)
    assert result.returncode == 2 and result.stderr.count("error: ") == 1, result.stderr
    assert "Traceback" not in result.stderr, result.stderr


# The others wait half a minute for the rank that hangs, side by side.
@pytest.mark.parametrize("names", [["mpirun"], pytest.param(["deepspeed", "torchrun"], marks=pytest.mark.slow)])
def test_a_collective_that_hangs_ends_after_the_timeout_and_names_the_place(names):
    with ThreadPoolExecutor() as pool:
        texts = [*pool.map(lambda launcher: end(launcher, "hangs", timeout=5), names)]
    for text in texts:
        assert "[rank 0] A collective did not finish within 5 s (parallel.timeout)" in text, text
        assert "It was in step 3. Here:" in text, text
        assert "sum_over_ranks (matey/parallel/collectives.py" in text, text
