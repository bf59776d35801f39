"""The job scripts on a real Slurm, whose virtual nodes are this machine: what jobs start, and what mistakes give."""

import csv
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import yaml

from tests.support.paths import ROOT
from tests.support.programs import preloaded, stand_in
from tests.support.runs import losses
from tests.support.slurm_cluster import SCRIPT, SHAPE, run_in, wait_for_step

ONE_NODE = ["--nodes=1", *SHAPE[1:]]


def test_two_tasks_on_each_of_two_nodes_train_together(cluster, forks):
    config, folder = run_in(cluster, "together", 4)
    job = cluster.submit(*SHAPE, SCRIPT, "--set", "train.steps=3", CONFIG=str(config), **forks)
    state, output = cluster.wait(job)
    assert state == "COMPLETED 0:0", output
    assert "rank 0 of 4 by slurm; 0 of 2 on its node" in output
    assert list(losses(folder)) == [1, 2, 3]  # the flag reached the run


def test_a_job_from_a_fresh_clone_has_a_place_for_its_words(cluster, tmp_path):
    subprocess.run(["git", "clone", "--quiet", ROOT, tmp_path / "clone"], check=True)
    del cluster.variables["SBATCH_OUTPUT"]
    try:
        job = cluster.submit(*ONE_NODE, SCRIPT, folder=tmp_path / "clone", CONFIG="nowhere.yaml")
    finally:
        cluster.variables["SBATCH_OUTPUT"] = f"{cluster.folder}/job-%j.out"
    cluster.wait(job)
    assert "error: Cannot read " in (tmp_path / "clone" / "logs" / f"matey-{job}.out").read_text()


@pytest.mark.parametrize("shape", [ONE_NODE, pytest.param(SHAPE, marks=pytest.mark.slow)])
def test_a_mistake_in_the_run_ends_the_chain_with_one_sentence_and_code_2(cluster, shape):
    job = cluster.submit(*shape, "--job-name=mistaken", SCRIPT, CONFIG="nowhere.yaml")
    state, output = cluster.wait(job)
    assert state == "FAILED 2:0" and output.count("error: Cannot read ") == 1, output
    assert cluster.jobs("mistaken")[-1] == job


FLAGS = ["adaptivity", "--seeds", "1", "--set", "train.steps=4", "--set", "train.warmup_steps=1"]


def submitted(cluster, command, *options, **environment):
    """Submit the jobs of a study, and return their numbers."""
    written = cluster.run(*command, "--slurm")
    assert written.returncode == 0, written.stderr
    line = next(line for line in written.stdout.splitlines() if ": bash " in line)
    path = line.partition(": bash ")[2].removesuffix(" -A PROJECT")
    said = cluster.run("bash", path, *options, **environment)
    assert said.returncode == 0, said.stderr
    return [int(line.split()[-1]) for line in said.stdout.splitlines()]


@pytest.mark.slow
def test_a_study_is_submitted_and_drawn_when_its_jobs_have_ended(cluster, tmp_path):
    command = [preloaded().python, "tools/reproduce.py", *FLAGS, "--out", str(tmp_path)]
    jobs = submitted(cluster, command, "--cpus-per-task=2", "--time=20")
    assert len(jobs) == 3
    for job in jobs:
        state, _ = cluster.wait(job)
        assert state == "COMPLETED 0:0", job
    assert submitted(cluster, command) == []
    before = {path: path.read_text() for path in tmp_path.glob("adaptivity-tiny/points/*/metrics.jsonl")}
    drawn = cluster.run(*command)
    assert drawn.returncode == 0 and "vit mix 16 to 8, 0.2" in drawn.stdout, drawn.stderr
    assert before == {path: path.read_text() for path in tmp_path.glob("adaptivity-tiny/points/*/metrics.jsonl")}
    assert (tmp_path / "adaptivity-tiny" / "results.png").stat().st_size > 10_000


@pytest.mark.slow
def test_a_scaling_study_submits_its_nodes_and_reads_what_they_measured(cluster, forks):
    config, folder = run_in(cluster, "study", 1)
    machine, script = folder / "machine.yaml", folder / "pretrain.sbatch"
    tree = yaml.safe_load(Path("matey/planning/machines/cpu.yaml").read_text())
    machine.write_text(yaml.safe_dump({**tree, "name": "virtual", "num_nodes": 2, "devices_per_node": 1}))
    text = Path(SCRIPT).read_text()
    for option, number in (("ntasks-per-node", 1), ("gpus-per-node", 0), ("cpus-per-task", 1)):
        text = text.replace(f"--{option}=8", f"--{option}={number}")
    script.write_text(text)
    command = [preloaded().python, "tools/reproduce.py", "scaling", "--nodes", "1,2", "--config", config, "--steps", 3]
    command += ["--warm_up", 1, "--machine", machine, "--script", script, "--out", folder]
    for job in submitted(cluster, command, **forks):
        state, _ = cluster.wait(job)
        assert state == "COMPLETED 0:0", [path.read_text() for path in folder.rglob("logs/*.txt")]
    drawn = cluster.run(*command)
    assert drawn.returncode == 0, drawn.stderr
    with (folder / "scaling-weak" / "results.csv").open() as file:
        rows = [(row["series"], row["ranks"]) for row in csv.DictReader(file)]
    assert rows == [("measured", "1"), ("planned", "1"), ("measured", "2"), ("planned", "2")]


# As Frontier gives whole nodes.
JOB = ["-A", "abc123", "-N", 1, "--exclusive"]
# The environment that a job unpacks on a node's disk; its Python is this one.
PROGRAMS = {"module": 'echo "called: module $*"', "conda-unpack": ":", "python": f'exec {sys.executable} "$@"'}


@pytest.fixture
def frontier(cluster, tmp_path):
    """The variables of a job on Frontier, without MPI and without a GPU."""
    programs = tmp_path / "bin"
    for name, body in PROGRAMS.items():
        stand_in(programs / name, body)
    with tarfile.open(tmp_path / "packed.tar.gz", "w:gz") as packed:
        packed.add(programs, "bin")
    (tmp_path / "disk").mkdir()
    return {
        "PATH": f"{programs}:{cluster.variables['PATH']}",
        "PACKED": str(tmp_path / "packed.tar.gz"),
        "DISK": str(tmp_path / "disk"),
        "LAUNCHER": "slurm",
        "DS_ACCELERATOR": "cpu",
        "PYTHONDONTWRITEBYTECODE": "",  # by what they write, one sees which modules were imported
    }


@pytest.mark.slow
def test_eight_tasks_of_a_frontier_node_train_save_and_go_on_in_the_next_job(cluster, frontier):
    config, folder = run_in(cluster, "frontier", 1)
    flags = ["--set", "train.accumulation=1", "--set", "train.steps=24"]
    script = "launch/frontier/pretrain.sbatch"
    job = cluster.submit(*JOB, "-t", 30, script, *flags, CONFIG=str(config), **frontier)
    wait_for_step(folder, 2, cluster, job)
    cluster.run("scancel", "--signal=USR1", job)
    state, output = cluster.wait(job)
    assert state == "COMPLETED 0:0" and "rank 0 of 8 by slurm; 0 of 8 on its node; cpu" in output, output
    assert "called: module load craype-accel-amd-gfx90a" in output and "of 24 is saved" in output, output
    later = cluster.jobs("matey")[-1]
    state, output = cluster.wait(later)
    assert later != job and state == "COMPLETED 0:0" and "Going on after step" in output, output
    assert list(losses(folder)) == list(range(1, 25))
    modules = Path(frontier["DISK"]) / "matey_code" / "matey"
    assert any(modules.rglob("*.pyc")), "the tasks imported the package from elsewhere than the node's disk"
