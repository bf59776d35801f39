"""Studies that pretrain many models, as commands."""

import json
import subprocess
import sys

import pytest

from tests.support.paths import ROOT
from tests.support.programs import clean_environment, start


def reproduce(*flags, **kwargs):
    return start([sys.executable, "tools/reproduce.py", *flags], **kwargs)


def reproduce_in(folder, *flags):
    command = [sys.executable, ROOT / "tools/reproduce.py", *flags]
    return subprocess.run(command, cwd=folder, env=clean_environment(), capture_output=True, text=True, timeout=600)


MISTAKES = [
    (["schemes", "--set", "train.stepz=3"], "train.stepz"),
    (["long_sequences", "--ranks", "3", "--plan"], "--ranks 3: long_sequences at the scale tiny trains on 2 ranks"),
    (["schemes", "--set", "train.seed=3"], "--set train.seed: a study gives each training its own"),
    (["schemes", "--set", "model.scheme=vit"], "vit-micro would not be what the name says"),
    (["schemes", "--draw", "--point", "vit-micro-seed0"], "leave it out, or leave out --draw"),
    (["schemes", "--draw"], "has no finished training yet; start them without --draw"),
    (["adaptivity", "--scale", "paper"], "is meant for 32 ranks, but would be trained on one"),
    (["report"], "holds no study"),
]


@pytest.mark.parametrize(("flags", "words"), MISTAKES)
def test_a_mistake_is_one_sentence_before_anything_runs(flags, words, run_here, tmp_path):
    status, _, said = run_here("tools/reproduce.py", *flags, "--out", tmp_path)
    assert status == 2 and said.startswith("error: ") and words in said and not list(tmp_path.iterdir())


def test_points_are_listed(tmp_path):
    result = reproduce("schemes", "--list", "--out", tmp_path)
    assert result.stdout.split() == ["vit-micro-seed0", "svit-micro-seed0", "avit-micro-seed0"]


@pytest.mark.slow
def test_the_papers_scale_says_its_cost_before_anything_starts(tmp_path):
    nowhere = {**clean_environment(), "PATH": ""}  # where there is no Slurm
    flags = ["--seeds", "1", "--launcher", "srun python", "--submit", "--out", tmp_path]
    started = reproduce("adaptivity", "--scale", "paper", *flags, env=nowhere)
    assert started.returncode == 2 and "There is no sbatch here" in started.stderr
    assert started.stdout.startswith("On frontier, 32 ranks on 4 nodes, 128 samples a step:")
    assert "44 trainings, " in started.stdout and " node hours, " in started.stdout


@pytest.mark.slow
def test_a_study_trains_scores_measures_and_draws_and_goes_on_where_it_was(tmp_path):
    """In a folder relative to the caller's, whose name means something in YAML, and of which a file of the data is lost."""
    flags = ["--jobs", "2", "--set", "train.steps=4", "--set", "train.warmup_steps=1"]
    flags = ["adaptivity", "--out", "runs, # {mine}", *flags]
    result = reproduce_in(tmp_path, *flags)
    assert result.returncode == 0, result.stderr[-2000:]
    assert "vit mix 16 to 8, 0.2" in result.stdout
    out = tmp_path / "runs, # {mine}"
    folder = out / "adaptivity-tiny"
    rows = folder / "points" / "vit-uniform-8-seed0" / "rows.json"
    assert {row["tokens"] for row in json.loads(rows.read_text())["rows"]} == {32}
    rows.unlink()
    lost = sorted((out / "data").glob("*/*.nc"))[-1]
    content = lost.read_bytes()
    lost.unlink()
    before = {path: path.read_text() for path in folder.glob("points/*/metrics.jsonl")}
    alone = reproduce_in(tmp_path, *flags, "--point", "vit-uniform-8-seed0")
    assert alone.returncode == 0 and lost.read_bytes() == content and rows.exists()
    assert reproduce_in(tmp_path, *flags).returncode == 0
    assert before == {path: path.read_text() for path in folder.glob("points/*/metrics.jsonl")}
    assert reproduce("report", "--out", out).returncode == 0
    text = (out / "report.html").read_text()
    assert "Adaptive tokens against uniform ones" in text and "data:image/png;base64" in text
    assert 'src="http' not in text and "by commit" in text


@pytest.mark.slow
@pytest.mark.parametrize("study", ["fine_grid", "schemes", "scaling_of_tokens", "long_sequences"])
def test_every_study_goes_from_its_data_to_its_figure_at_the_scale_tiny(study, tmp_path):
    result = reproduce(study, "--out", tmp_path, "--set", "train.steps=4", "--set", "train.warmup_steps=1", timeout=900)
    assert result.returncode == 0, result.stderr[-2000:]
    assert (tmp_path / f"{study}-tiny" / "results.png").stat().st_size > 10_000
