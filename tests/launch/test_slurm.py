"""The job script for Slurm on a real Slurm, whose virtual nodes are this machine: what jobs start, and what mistakes give."""

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.support.paths import ROOT
from tests.support.programs import preloaded
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_renamed_script_submits_itself_with_what_its_job_was_given(cluster, forks):
    config, folder = run_in(cluster, "renamed", 2)
    script = cluster.folder / "my own.sbatch"
    shutil.copy(SCRIPT, script)
    given = [*ONE_NODE, "--job-name=chained", "--mem=1000", "--constraint=nvme"]
    flags = ["--set", "train.log_every=1"]
    job = first = cluster.submit(*given, script, *flags, CONFIG=str(config), SBATCH_SIGNAL="USR1@77", **forks)
    wait_for_step(folder, 3, cluster, job)
    cluster.run("scancel", "--signal=USR1", job)
    state, output = cluster.wait(job)
    assert state == "COMPLETED 0:0", output
    job = cluster.jobs("chained")[-1]
    state, output = cluster.wait(job)
    assert job != first and state == "COMPLETED 0:0" and "Going on after step" in output, output
    before, now = cluster.fields(first), cluster.fields(job)
    for name in ("JobName", "NumTasks", "CPUs/Task", "TimeLimit", "MinMemoryNode", "Features", "Requeue", "Command"):
        assert now[name] == before[name], name
    assert now["Command"] == str(script).split()[0]  # as `fields` reads it, up to the space


@pytest.mark.parametrize("shape", [ONE_NODE, pytest.param(SHAPE, marks=pytest.mark.slow)])
def test_a_mistake_in_the_run_ends_the_chain_with_one_sentence_and_code_2(cluster, shape):
    job = cluster.submit(*shape, "--job-name=mistaken", SCRIPT, CONFIG="nowhere.yaml")
    state, output = cluster.wait(job)
    assert state == "FAILED 2:0" and output.count("error: Cannot read ") == 1, output
    assert cluster.jobs("mistaken")[-1] == job


@pytest.mark.slow
def test_a_mistake_that_the_ranks_meet_together_ends_all_with_code_2(cluster, forks):
    config, _ = run_in(cluster, "mistaken", 4)
    job = cluster.submit(*SHAPE, SCRIPT, "--set", "data.history=50", CONFIG=str(config), **forks)
    state, output = cluster.wait(job)
    said = [line for line in output.splitlines() if "error: " in line and not line.startswith(("srun:", "slurmstepd"))]
    assert state == "FAILED 2:0" and len(said) == 1, output


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shape", "on_node"),
    [(["--ntasks-per-node=2"], {0: 2, 1: 2, 2: 2, 3: 2}), (["--ntasks=3"], {0: 2, 1: 2, 2: 1})],
)
def test_each_task_of_srun_says_whom_it_takes_itself_for(cluster, shape, on_node):
    command = [preloaded().python, "-m", "matey.parallel.environment"]
    result = cluster.run("srun", "--nodes=2", *shape, *command, MASTER_ADDR="")
    assert result.returncode == 0, result.stderr
    for rank, size in on_node.items():
        place = rank % 2 if size == 2 else 0
        words = f"rank {rank} of {len(on_node)} by slurm; {place} of {size} on its node; cpu, gloo; rank 0 at n1:"
        assert words in result.stdout, result.stdout


@pytest.mark.slow
def test_a_study_submits_its_points_and_reads_what_they_measured(cluster, forks):
    config, folder = run_in(cluster, "study", 1)
    machine, script = folder / "machine.yaml", folder / "pretrain.sbatch"
    tree = yaml.safe_load(Path("matey/planning/machines/cpu.yaml").read_text())
    machine.write_text(yaml.safe_dump({**tree, "name": "virtual", "num_nodes": 2, "devices_per_node": 1}))
    text = Path(SCRIPT).read_text()
    for option, number in (("ntasks-per-node", 1), ("gpus-per-node", 0), ("cpus-per-task", 1)):
        text = text.replace(f"--{option}=8", f"--{option}={number}")
    script.write_text(text)
    tool, out = [preloaded().python, "tools/scaling_study.py"], ["--out", folder / "weak"]
    run = ["--config", config, "--deepspeed_config", "ds_configs/zero1.json", "--steps", 3, "--warm_up", 1]
    where = ["--nodes", "1,2", "--machine", machine, "--script", script]
    planned = cluster.run(*tool, "plan", "--mode", "weak", *where, *run, *out)
    assert planned.returncode == 0, planned.stdout + planned.stderr
    submitted = cluster.run(*tool, "run", "--submit", *out, **forks)
    assert submitted.returncode == 0, submitted.stdout + submitted.stderr
    for point in (1, 2):
        (job,) = cluster.jobs(f"matey-weak-nodes_{point}")
        state, _ = cluster.wait(job)
        assert state == "COMPLETED 0:0", [path.read_text() for path in folder.rglob("logs/*.txt")]
    assert "finished before" in cluster.run(*tool, "run", "--submit", *out, **forks).stdout
    report = cluster.run(*tool, "report", *out)
    assert report.returncode == 0, report.stderr
    rows = (folder / "weak" / "points.csv").read_text().splitlines()
    assert [row.split(",")[2:4] for row in rows if row.startswith("measured")] == [["1", "1"], ["2", "2"]], rows
