"""What a job says and how soon it ends when one of its ranks fails, in real processes under every launcher."""

import os
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from tests.support.launchers import LAUNCHERS
from tests.support.programs import held_back, in_background, kill, preloaded, start, start_ranks
from tests.support.watched import environments

SCRIPT = "tests/parallel/one_rank_fails.py"


def launchers(*always):
    """All launchers; those not named run with the slow tests."""
    return [name if name in always else pytest.param(name, marks=pytest.mark.slow) for name in LAUNCHERS]


def end(launcher, way, timeout=300):
    """Run the script, which has 120 s to end; return what it printed on standard error."""
    more = ["--no_local_rank"] if launcher == "deepspeed" else []
    mark = f"{launcher}_started_by_{os.getpid()}"  # the same may run for another launcher
    result = start([*LAUNCHERS[launcher], *more, SCRIPT, way, timeout, mark], timeout=120)
    assert "failing now" in result.stdout and result.returncode != 0, result.stdout + result.stderr
    assert [process for process in psutil.process_iter(["cmdline"]) if mark in (process.info["cmdline"] or [])] == []
    return result.stderr


@pytest.mark.parametrize("launcher", launchers("torchrun"))
def test_the_failed_ranks_traceback_comes_first_and_the_job_ends(launcher):
    text = end(launcher, "raises")
    first = text.index("[rank 1] Traceback")
    assert "[rank 1] KeyError: 'water_height'" in text and "one_rank_fails.py" in text
    assert "Traceback" not in text[:first] and "Lost another rank" not in text[:first], text


def end_of(tmp_path, num_ranks, way):
    """Run the script on ranks without a launcher; return their exit codes, and all that they printed."""
    command = [sys.executable, SCRIPT, way, "300"]
    with (tmp_path / "said.txt").open("w+b") as said:
        ranks = [preloaded().start(command, variables, said, said) for variables in environments(tmp_path, num_ranks)]
        try:
            codes = [rank.wait(120) for rank in ranks]
        finally:
            for rank in ranks:
                kill(rank)
        said.seek(0)
        return codes, said.read().decode()


@pytest.mark.parametrize("way", ["is_refused", "meets_a_mistake"])
def test_a_rank_that_waits_or_forecasts_ends_with_the_code_of_one_that_failed(tmp_path, way):
    codes, text = end_of(tmp_path, 2, way)
    assert codes == [2, 2] and text.count("error: what rank 1 alone met") == 1 and "Traceback" not in text, text


@pytest.mark.parametrize("numbers", [(signal.SIGTERM, signal.SIGINT), (signal.SIGHUP, signal.SIGUSR1)])
def test_ranks_that_forecast_die_of_signals(tmp_path, numbers):
    command = [sys.executable, SCRIPT, "forecasts", "300"]
    with (tmp_path / "said.txt").open("w+b") as said:
        ranks = [preloaded().start(command, variables, said, said) for variables in environments(tmp_path, 2)]
        try:
            wait_for((tmp_path / "said.txt").read_text, "is forecasting", 2)
            for rank, number in zip(ranks, numbers, strict=True):
                os.kill(rank.pid, number)
            assert [rank.wait(30) for rank in ranks] == [-number for number in numbers]
        finally:
            for rank in ranks:
                kill(rank)


@pytest.mark.parametrize("launcher", launchers("torchrun"))
def test_ranks_that_forecast_end_with_their_launcher(tmp_path, launcher):
    more = ["--no_local_rank"] if launcher == "deepspeed" else []
    with (
        (tmp_path / "said.txt").open("w") as said,
        in_background([*LAUNCHERS[launcher], *more, SCRIPT, "forecasts", "300"], stdout=said, stderr=said) as process,
    ):
        wait_for((tmp_path / "said.txt").read_text, "is forecasting", 2)
        ranks = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        assert not psutil.wait_procs(ranks, timeout=30)[1], (tmp_path / "said.txt").read_text()


def wait_for(read, word, count):
    """Wait until a text has a word so often."""
    deadline = time.monotonic() + 120
    while read().count(word) < count:
        assert time.monotonic() < deadline, read()
        time.sleep(0.05)


@pytest.mark.slow
def test_a_rank_whose_others_never_come_ends_when_asked_to_and_says_so(run_yaml, tmp_path):
    flags = ["--deepspeed_config", "ds_configs/zero1.json", "--config", run_yaml()]
    command = [sys.executable, "launch/pretrain.py", *map(str, flags)]
    with (tmp_path / "said.txt").open("w+b") as said:
        # Of two jobs one rank each: neither the one that answers the other nor the one that calls has ever met it.
        alone = [preloaded().start(command, environments(tmp_path, 2)[rank], said, said) for rank in range(2)]
        try:
            until = time.monotonic() + 120
            for rank in alone:
                while signal.SIGTERM not in held_back(rank.pid):
                    assert time.monotonic() < until
                    time.sleep(0.1)
                os.kill(rank.pid, signal.SIGTERM)
            codes = [rank.wait(120) for rank in alone]
        finally:
            for rank in alone:
                kill(rank)
        said.seek(0)
        text = said.read().decode()
    assert codes == [1, 1] and "Traceback" not in text, text
    asked = "Asked to end (SIGTERM) while it waited for other ranks, which did not come."
    assert f"[rank 0] {asked}" in text and f"[rank 1] {asked}" in text, text


@pytest.mark.parametrize("launcher", launchers("mpirun"))
def test_a_killed_rank_ends_the_job_and_the_others_say_where(launcher):
    text = end(launcher, "is_killed")
    said = [line for line in text.splitlines() if "[rank 0]" in line]
    assert len(said) <= 1, text  # none where the launcher was faster
    if said:
        assert "Lost another rank" in said[0] and "sum_over_ranks (matey/parallel/collectives.py" in said[0]


@pytest.mark.parametrize(
    ("launcher", "for_rank_one", "sentence"),
    [
        pytest.param("mpirun", ["--config", "nowhere.yaml"], "nowhere.yaml", marks=pytest.mark.slow),
        ("torchrun", ["--set", "train.seed=7"], "the run's configuration"),
    ],
)
def test_a_mistake_that_one_rank_alone_meets_is_said_and_ends_the_job(run_yaml, launcher, for_rank_one, sentence):
    flags = ["--deepspeed_config", "ds_configs/zero1.json", "--config", run_yaml()]
    command = [*LAUNCHERS[launcher], "tests/parallel/one_rank_misled.py", *flags, "--", *for_rank_one]
    result = start(command, timeout=60)
    said = [line for line in result.stderr.splitlines() if "error: " in line and line.startswith("[rank ")]
    assert result.returncode != 0 and len(said) == 1 and sentence in said[0], result.stderr
    assert "Traceback" not in result.stderr.split("elastic")[0], result.stderr


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--set", "data.history=50"], "error: "),
        pytest.param(["--no_such_flag"], "error: unrecognized arguments: --no_such_flag", marks=pytest.mark.slow),
    ],
)
def test_a_mistake_that_all_ranks_meet_is_said_once_and_ends_with_code_2(run_yaml, flags, sentence):
    command = ["launch/pretrain.py", "--deepspeed_config", "ds_configs/zero1.json", "--config", run_yaml(), *flags]
    result = start([*LAUNCHERS["mpirun"], *command], timeout=120)
    said = [line for line in result.stderr.splitlines() if "error: " in line]
    assert result.returncode == 2 and len(said) == 1 and sentence in said[0], result.stderr
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


AGREE = """
import sys
from matey.config import ConfigError
from matey.parallel.collectives import check_agreement
from matey.parallel.environment import find_environment, start_processes, stop_processes
environment = find_environment()
start_processes(environment, 60, 1)
facts = {"the code": "1", "the data": "a" if environment.rank == 0 or sys.argv[1] == "same" else "b"}
try:
    check_agreement(facts)
    sys.stdout.write(f"rank {environment.rank} agrees\\n")
except ConfigError as error:
    sys.stdout.write(f"rank {environment.rank}: {error}\\n")
stop_processes()
"""


@pytest.mark.parametrize("data", ["same", "other"])
def test_every_rank_says_what_differs_and_on_which_rank(tmp_path, data):
    (tmp_path / "agree.py").write_text(AGREE)
    result = start_ranks(2, tmp_path / "agree.py", data)
    assert result.returncode == 0, result.stderr[-2000:]
    for rank in (0, 1):
        expected = f"rank {rank} agrees" if data == "same" else f"rank {rank}: Rank 1 has the data with fingerprint b"
        assert expected in result.stdout
