"""Studies whose points are jobs of a real Slurm, whose virtual nodes are this machine."""

import csv
from pathlib import Path

import pytest
import yaml

from tests.support.programs import preloaded
from tests.support.slurm_cluster import SCRIPT, run_in

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
