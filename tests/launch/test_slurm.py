"""The job script for Slurm on a real Slurm, whose virtual nodes are this machine."""

import sys
import time
from pathlib import Path

import pytest

from tests.conftest import write_swe
from tests.launch.slurm_cluster import start_slurm, what_is_missing
from tests.launch.test_interruptions import NUM_STEPS, losses, write_run

pytestmark = pytest.mark.skipif(bool(what_is_missing()), reason=what_is_missing())

SCRIPT = "launch/slurm/pretrain.sbatch"
SHAPE = ["--nodes=2", "--ntasks-per-node=2", "--gpus-per-node=0", "--cpus-per-task=1", "--time=30"]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    folder = tmp_path_factory.mktemp("slurm")
    write_swe(folder / "swe" / "2D_rdb_NA_NA.h5", 10)
    with start_slurm(folder / "cluster") as cluster:
        cluster.variables |= {
            "DEEPSPEED_CONFIG": "ds_configs/zero1.json",
            "VENV": str(Path(sys.executable).parent.parent),
        }
        yield cluster


def run_in(cluster, name, num_ranks):
    return write_run(cluster.folder.parent / name, num_ranks), cluster.folder.parent / name


def test_two_tasks_on_each_of_two_nodes_train_together(cluster):
    config, folder = run_in(cluster, "together", 4)
    job = cluster.submit(*SHAPE, SCRIPT, "--set", "train.steps=3", CONFIG=str(config))
    state, output = cluster.wait(job)
    assert state == "COMPLETED 0:0", output
    assert "rank 0 of 4 by slurm; 0 of 2 on its node" in output
    assert list(losses(folder)) == [1, 2, 3]  # the flag reached the run


def test_a_job_of_one_task_without_a_word_of_cores_trains(cluster):
    config, folder = run_in(cluster, "one", 1)
    script = cluster.folder / "plain.sbatch"
    lines = Path(SCRIPT).read_text().splitlines()
    script.write_text("\n".join(line for line in lines if not line.startswith("#SBATCH --cpus-per-task")))
    job = cluster.submit(
        "--nodes=1", "--ntasks-per-node=1", "--gpus-per-node=0", script, "--set", "train.steps=2", CONFIG=str(config)
    )
    state, output = cluster.wait(job)
    assert state == "COMPLETED 0:0", output
    assert list(losses(folder)) == [1, 2]


def test_a_chain_of_jobs_asked_to_leave_gives_the_losses_of_one_unbroken_run(cluster):
    config, unbroken = run_in(cluster, "unbroken", 2)
    shape = ["--nodes=1", *SHAPE[1:], "--job-name=chained"]
    state, output = cluster.wait(cluster.submit(*shape, SCRIPT, CONFIG=str(config)))
    assert state == "COMPLETED 0:0", output
    config, folder = run_in(cluster, "chained", 2)
    job = cluster.submit(*shape, SCRIPT, CONFIG=str(config))
    first = job
    for at_step in (5, 15):
        wait_for_step(folder, at_step, cluster, job)
        assert cluster.run("scancel", "--signal=USR1", job).returncode == 0
        state, output = cluster.wait(job)
        assert state == "COMPLETED 0:0" and f"of {NUM_STEPS} is saved" in output, output
        job = cluster.jobs()[-1]
        given, now = cluster.fields(first), cluster.fields(job)
        for name in ("JobName", "NumTasks", "CPUs/Task", "TimeLimit"):
            assert now[name] == given[name], name
    state, output = cluster.wait(job)
    assert state == "COMPLETED 0:0" and "Going on after step" in output, output
    assert losses(folder) == losses(unbroken)


def test_a_mistake_in_the_run_ends_the_chain_with_a_sentence(cluster):
    before = cluster.jobs()
    job = cluster.submit("--nodes=1", *SHAPE[1:], SCRIPT, CONFIG="nowhere.yaml")
    state, output = cluster.wait(job)
    assert state == "FAILED 2:0" and "nowhere.yaml" in output, output
    assert cluster.jobs() == [*before, job]


def wait_for_step(folder, step, cluster, job):
    deadline = time.monotonic() + 120
    while not any(done >= step for done in losses(folder)):
        assert time.monotonic() < deadline, cluster.output(job)
        time.sleep(0.05)
