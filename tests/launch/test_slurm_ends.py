"""How jobs of a real Slurm end before their run is done, and that the next one loses nothing."""

import os
import re
import signal
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.support.runs import NUM_STEPS, losses
from tests.support.slurm_cluster import SCRIPT, SHAPE, run_in, wait_for_step

pytestmark = pytest.mark.slow

ONE_NODE = ["--nodes=1", *SHAPE[1:]]
TWO_NODES = ["--nodes=2", "--ntasks-per-node=1", *SHAPE[2:]]
OFTEN = ["--set", "train.checkpoint_every=2"]


@pytest.fixture(scope="module")
def unbroken(cluster, forks) -> dict[int, float]:
    """The losses of a run of two ranks that nothing interrupts."""
    config, folder = run_in(cluster, "unbroken", 2)
    state, output = cluster.wait(cluster.submit(*ONE_NODE, SCRIPT, CONFIG=str(config), **forks))
    assert state == "COMPLETED 0:0", output
    return losses(folder)


def saved_step(folder) -> int:
    return int((folder / "run" / "checkpoints" / "latest").read_text().removeprefix("step_"))


def ranks_of(cluster, job) -> list[psutil.Process]:
    """The training processes of a job, by rank."""
    found = {}
    for process in psutil.process_iter():
        try:
            variables = process.environ()
            is_rank = "launch/pretrain.py" in process.cmdline() and "python" in process.name()
        except psutil.Error:
            continue
        if is_rank and (variables.get("SLURM_CONF"), variables.get("SLURM_JOB_ID")) == (
            cluster.variables["SLURM_CONF"],
            str(job),
        ):
            found[int(variables["SLURM_PROCID"])] = process
    return [found[rank] for rank in sorted(found)]


def goes_on_to(unbroken, cluster, forks, config, folder, shape):
    """Submit the same again, which finishes the run with the losses of the unbroken one."""
    state, output = cluster.wait(cluster.submit(*shape, SCRIPT, CONFIG=str(config), **forks))
    assert state == "COMPLETED 0:0" and "Going on after step" in output, output
    assert losses(folder) == unbroken


def start_soon(cluster, job):
    """Start a job that is to start again, for which Slurm would wait two minutes."""
    until = time.monotonic() + 120
    while cluster.fields(job)["JobState"] not in ("RUNNING", "COMPLETED"):
        assert time.monotonic() < until, cluster.output(job)
        cluster.run("scontrol", "update", f"jobid={job}", "starttime=now")
        time.sleep(1)


def hold_until_signalled(cluster, job, folder, at_step):
    """Stop a job's ranks after a step, as a slow file system would, until Slurm's signal ahead of the limit has come.

    A machine so slow that the signal comes before that step holds them by itself.
    """
    held = []
    deadline = time.monotonic() + 120
    while cluster.fields(job)["JobState"] in ("PENDING", "RUNNING"):
        assert time.monotonic() < deadline, cluster.output(job)
        with suppress(psutil.NoSuchProcess, FileNotFoundError):
            if not held and any(step >= at_step for step in losses(folder)):
                held = ranks_of(cluster, job)
                for rank in held:
                    rank.suspend()
            if held and all(has_usr1_pending(rank) for rank in held):
                for rank in held:
                    rank.resume()
                return
        time.sleep(0.1)


def has_usr1_pending(process) -> bool:
    pending = re.findall(r"^S(?:ig|hd)Pnd:\s(\w+)", Path(f"/proc/{process.pid}/status").read_text(), re.MULTILINE)
    return any(int(mask, 16) >> (signal.SIGUSR1 - 1) & 1 for mask in pending)


def test_a_chain_across_time_limits_gives_the_losses_of_one_unbroken_run(cluster, unbroken):
    config, folder = run_in(cluster, "limited", 2)
    shape = ["--nodes=1", *SHAPE[1:-1], "--time=2"]
    evaluate = f"python launch/evaluate.py --checkpoint {folder}/run --out {folder}/evaluated --rollout 1"
    then = f"sbatch --job-name=evaluated --nodes=1 --wrap='{evaluate}'"
    # Slurm looks every 30 s, and so sends it between 30 and 60 s after the start; a busy machine has a minute to save.
    job = cluster.submit(*shape, "--job-name=limited", SCRIPT, CONFIG=str(config), SBATCH_SIGNAL="USR1@60", THEN=then)
    hold_until_signalled(cluster, job, folder, 5)
    num_jobs = 1
    while True:
        state, output = cluster.wait(job)
        assert state == "COMPLETED 0:0" and num_jobs < 9, output
        if f"of {NUM_STEPS} is saved" not in output:
            break
        job = cluster.jobs("limited")[-1]
        num_jobs += 1
        if num_jobs == 2:  # whose own limit would only come later
            wait_for_step(folder, saved_step(folder) + 3, cluster, job)
            cluster.run("scancel", "--signal=USR1", job)
    assert num_jobs >= 3 and "Going on after step" in output, output
    assert losses(folder) == unbroken
    (later,) = cluster.jobs("evaluated")
    state, output = cluster.wait(later)
    assert state == "COMPLETED 0:0" and (folder / "evaluated" / "metrics.json").is_file(), output


def test_scancel_saves_the_run_and_ends_the_chain(cluster, unbroken, forks):
    config, folder = run_in(cluster, "cancelled", 2)
    job = cluster.submit(*ONE_NODE, "--job-name=cancelled", SCRIPT, CONFIG=str(config))
    wait_for_step(folder, 3, cluster, job)
    ranks = ranks_of(cluster, job)
    assert cluster.run("scancel", job).returncode == 0
    state, output = cluster.wait(job)
    assert state.startswith("CANCELLED"), output
    assert psutil.wait_procs(ranks, timeout=60)[1] == []
    assert saved_step(folder) == max(losses(folder)) and cluster.jobs("cancelled") == [job], cluster.output(job)
    goes_on_to(unbroken, cluster, forks, config, folder, ONE_NODE)


def test_a_killed_rank_ends_the_job_and_the_chain_and_the_next_one_goes_on(cluster, unbroken, forks):
    config, folder = run_in(cluster, "killed_rank", 2)
    job = cluster.submit(*ONE_NODE, "--job-name=killed_rank", SCRIPT, *OFTEN, CONFIG=str(config))
    wait_for_step(folder, 5, cluster, job)
    ranks_of(cluster, job)[1].kill()
    state, output = cluster.wait(job, seconds=60)
    assert state.startswith("FAILED") and cluster.jobs("killed_rank") == [job], output
    goes_on_to(unbroken, cluster, forks, config, folder, ONE_NODE)


@pytest.mark.parametrize("node", [1])
def test_a_job_whose_node_fails_starts_again_and_loses_nothing(cluster, unbroken, forks, node):
    config, folder = run_in(cluster, f"killed_node_{node}", 2)
    given = [*TWO_NODES, f"--job-name=killed_node_{node}"]
    job = cluster.submit(*given, SCRIPT, *OFTEN, CONFIG=str(config), SBATCH_OPEN_MODE="append")
    wait_for_step(folder, 5, cluster, job)
    ranks = ranks_of(cluster, job)
    assert len(ranks) == 2
    with cluster.node_down(f"n{node}", [ranks[node - 1].pid]):
        assert psutil.wait_procs(ranks, timeout=60)[1] == []
        assert cluster.fields(job)["Restarts"] == "1"
    start_soon(cluster, job)
    state, output = cluster.wait(job, seconds=120)
    assert state == "COMPLETED 0:0" and "Going on after step" in output, output
    assert cluster.jobs(f"killed_node_{node}") == [job] and losses(folder) == unbroken


def test_a_preempted_job_saves_and_its_next_one_alone_goes_on(cluster, unbroken):
    config, folder = run_in(cluster, "preempted", 2)
    job = cluster.submit(*TWO_NODES, "--exclusive", "--job-name=preempted", SCRIPT, CONFIG=str(config))
    wait_for_step(folder, 3, cluster, job)
    urgent = cluster.submit("--partition=urgent", "--nodes=2", "--exclusive", "--wrap=sleep 1")
    assert cluster.wait(urgent)[0] == "COMPLETED 0:0"
    start_soon(cluster, job)
    state, output = cluster.wait(job)
    assert state == "COMPLETED 0:0" and f"of {NUM_STEPS} is saved" in output, (state, output)
    assert "had submitted the next one, which goes on" in output and cluster.fields(job)["Restarts"] == "1", output
    _, following = cluster.jobs("preempted")
    state, output = cluster.wait(following)
    assert state == "COMPLETED 0:0" and "Going on after step" in output, output
    assert losses(folder) == unbroken


def test_signals_during_the_save_do_not_interrupt_it(cluster, unbroken, forks):
    config, folder = run_in(cluster, "hurried", 2)
    job = cluster.submit(*ONE_NODE, "--job-name=hurried", SCRIPT, CONFIG=str(config), MAX_JOBS="1")
    wait_for_step(folder, 3, cluster, job)
    ranks, until = ranks_of(cluster, job), time.monotonic() + 120
    while any(rank.is_running() and rank.status() != psutil.STATUS_ZOMBIE for rank in ranks):
        assert time.monotonic() < until, cluster.output(job)
        for rank in ranks:
            for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT):
                try:
                    os.kill(rank.pid, number)
                except ProcessLookupError:
                    break
        time.sleep(0.01)
    state, output = cluster.wait(job)
    assert state == "FAILED 75:0" and saved_step(folder) == max(losses(folder)), output
    goes_on_to(unbroken, cluster, forks, config, folder, ONE_NODE)
