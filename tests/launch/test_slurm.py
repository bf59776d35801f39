"""The job script for Slurm on a real Slurm, whose virtual nodes are this machine: what jobs start, and what mistakes give."""

import subprocess

import pytest

from tests.support.paths import ROOT
from tests.support.runs import losses
from tests.support.slurm_cluster import SCRIPT, SHAPE, run_in

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
