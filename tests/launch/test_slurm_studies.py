"""A study whose trainings are jobs of a real Slurm, whose virtual nodes are this machine."""

import pytest

from tests.support.programs import preloaded

FLAGS = ["adaptivity", "--seeds", "1", "--set", "train.steps=4", "--set", "train.warmup_steps=1"]


@pytest.mark.slow
def test_a_study_is_submitted_once_and_drawn_when_its_jobs_have_ended(cluster, tmp_path):
    command = [preloaded().python, "tools/reproduce.py", *FLAGS, "--out", str(tmp_path)]
    submitted = cluster.run(*command, "--submit", "--sbatch=--cpus-per-task=2", "--sbatch=--time=20")
    *jobs, last = submitted.stdout.splitlines()
    assert submitted.returncode == 0 and len(jobs) == 3 and "--draw" in last, submitted.stderr
    for line in jobs:
        state, _ = cluster.wait(int(line.split()[-1]))
        assert state == "COMPLETED 0:0", line
    again = cluster.run(*command, "--submit")
    assert [line.split(": ")[1] for line in again.stdout.splitlines()[:3]] == 3 * ["done"], again.stderr
    before = {path: path.read_text() for path in tmp_path.glob("adaptivity-tiny/points/*/metrics.jsonl")}
    drawn = cluster.run(*command, "--draw")
    assert drawn.returncode == 0 and "vit mix 16 to 8, 0.2" in drawn.stdout, drawn.stderr
    assert before == {path: path.read_text() for path in tmp_path.glob("adaptivity-tiny/points/*/metrics.jsonl")}
    assert (tmp_path / "adaptivity-tiny" / "results.png").stat().st_size > 10_000
