"""Studies that pretrain many models, as commands."""

import json
import subprocess
import sys
from argparse import Namespace

import pytest

from matey.commands.reproduce import points_named, pretraining
from matey.studies.folder import StudyError
from matey.studies.pretraining.tables import STUDIES
from matey.train.folder import FileLock
from tests.support.paths import ROOT
from tests.support.programs import clean_environment, start

TIMES = [f"{what}_seconds" for what in ("step", "data", "forward", "backward", "optimizer", "forecast", "batch")]
TIMES += ["samples_per_second"]


def reproduce(*flags, **kwargs):
    return start([sys.executable, "tools/reproduce.py", *flags], **kwargs)


def reproduce_in(folder, *flags):
    command = [sys.executable, ROOT / "tools/reproduce.py", *flags]
    return subprocess.run(command, cwd=folder, env=clean_environment(), capture_output=True, text=True, timeout=600)


def test_points_are_listed_and_mistakes_told_before_anything_runs(tmp_path):
    result = reproduce("schemes", "--list", "--out", tmp_path)
    assert result.returncode == 0 and [line.split(":")[0] for line in result.stdout.splitlines()] == [
        "vit-micro-seed0",
        "svit-micro-seed0",
        "avit-micro-seed0",
    ]
    result = reproduce("schemes", "--set", "train.stepz=3", "--out", tmp_path)
    assert result.returncode == 2 and "train.stepz" in result.stderr and "Traceback" not in result.stderr
    result = reproduce("long_sequences", "--ranks", "3", "--plan", "--out", tmp_path)
    assert result.returncode == 2 and "--ranks 3: long_sequences at the scale tiny trains on 2 ranks" in result.stderr
    result = reproduce("schemes", "--set", "train.seed=3", "--out", tmp_path)
    assert result.returncode == 2 and "--set train.seed: a study gives each training its own" in result.stderr
    result = reproduce("schemes", "--set", "model.scheme=vit", "--out", tmp_path)
    assert result.returncode == 2 and "vit-micro (and 2 more) would not be what the name says" in result.stderr
    result = reproduce("schemes", "--time", "--out", tmp_path)
    assert result.returncode == 2 and "has no finished training yet; start them without --time" in result.stderr
    result = reproduce("schemes", "--time", "--models", "vit-micro", "--out", tmp_path)
    assert result.returncode == 2 and "it times all finished trainings; leave out --models and --seeds" in result.stderr
    result = reproduce("schemes", "--draw", "--point", "vit-micro-seed0", "--out", tmp_path)
    assert result.returncode == 2 and "leave it out, or leave out --draw" in result.stderr
    result = reproduce("report", "--out", tmp_path)
    assert result.returncode == 2 and "holds no study" in result.stderr
    assert not list(tmp_path.iterdir())


def test_the_papers_scale_says_its_cost_before_anything_starts(tmp_path):
    flags = ["adaptivity", "--scale", "paper", "--seeds", "1", "--out", tmp_path]
    alone = reproduce(*flags)
    assert alone.returncode == 2 and "is meant for 32 ranks, but would be trained on one" in alone.stderr
    nowhere = {**clean_environment(), "PATH": ""}  # where there is no Slurm
    started = reproduce(*flags, "--launcher", "srun python", "--submit", env=nowhere)
    assert started.returncode == 2 and "There is no sbatch here" in started.stderr
    assert started.stdout.startswith("On frontier, 32 ranks on 4 nodes, 128 samples a step:")
    assert "44 trainings, " in started.stdout and " node hours, " in started.stdout


@pytest.mark.parametrize("scale", ["tiny", "laptop"])
def test_each_scale_of_a_study_has_a_folder_of_its_own_in_one_out(scale, tmp_path):
    """As the docs call them one after the other; what the scales differ in is told apart by the study's facts."""
    given = {"out": tmp_path, "scale": scale, "set": [], "deepspeed_config": "ds_configs/zero1.json", "list": True}
    args = Namespace(**given, **dict.fromkeys(("seeds", "models", "launcher", "machine", "ranks")))
    for name in ("adaptivity", "schemes", "scaling_of_tokens"):
        study = pretraining(Namespace(study=name, **vars(args)))
        assert study.out == tmp_path / f"{name}-{scale}"


def test_models_that_are_named_are_trained_and_a_name_that_is_none_is_refused():
    points = STUDIES["schemes"]().tables["laptop"].points(2)
    assert points_named(None, points) == points
    found = points_named("avit-micro,vit-Ti", points)
    assert [point.name for point in found] == ["vit-Ti-seed0", "avit-micro-seed0", "vit-Ti-seed1", "avit-micro-seed1"]
    with pytest.raises(StudyError, match="--models: the study has no model 'vit-L'; it has vit-micro, "):
        points_named("vit-L", points)


def test_the_results_of_models_that_are_not_named_stay_in_the_table(tmp_path):
    given = {
        "study": "schemes",
        "out": tmp_path,
        "scale": "laptop",
        "set": [],
        "deepspeed_config": "ds_configs/zero1.json",
    }
    given |= {"models": "vit-Ti", "seeds": 1, "list": True}
    study = pretraining(Namespace(**given, **dict.fromkeys(("launcher", "machine", "ranks"))))
    assert [point.name for point in study.points] == ["vit-Ti-seed0"]
    assert list(study.shown) == study.table.points(1)
    (study.folder(study.table.points(3)[-1])).mkdir(parents=True)  # of another call, with more seeds
    assert list(study.shown) == study.table.points(3)


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
    costs = json.loads((folder / "points" / "vit-uniform-8-seed0" / "costs.json").read_text())
    assert costs["tokens"] == 32 and min(cost for name, cost in costs.items() if "message" not in name) > 0
    (folder / "points" / "vit-uniform-8-seed0" / "costs.json").unlink()
    lost = sorted((out / "data").glob("*/*.nc"))[-1]
    content = lost.read_bytes()
    lost.unlink()
    before = {path: path.read_text() for path in folder.glob("points/*/metrics.jsonl")}
    alone = reproduce_in(tmp_path, *flags, "--point", "vit-uniform-8-seed0")
    assert alone.returncode == 0 and lost.read_bytes() == content
    assert reproduce_in(tmp_path, *flags).returncode == 0
    time = [*flags[:3], *flags[5:], "--time"]
    two = ["--launcher", f"{sys.executable} -m torch.distributed.run --standalone --nproc-per-node 2"]
    assert "was trained on 1 ranks, but timed on 2; see --launcher" in reproduce_in(tmp_path, *time, *two).stderr
    checkpoints = folder / "points" / "vit-mix-16-to-8-0.2-seed0" / "checkpoints"
    checkpoints.rename(tmp_path / "aside")
    refused = reproduce_in(tmp_path, *time).stderr
    assert "vit-mix-16-to-8-0.2-seed0 cannot be timed: " in refused and "remove it and start the study" in refused
    (tmp_path / "aside").rename(checkpoints)
    timing = FileLock(folder / "times")
    timing.take()
    assert "is being timed by another call; wait for it" in reproduce_in(tmp_path, *time).stderr
    timing.release()
    assert "Times of" not in (folder / "results.txt").read_text()
    (folder / "timing-killed").mkdir()  # left by a call that was killed
    timed = reproduce_in(tmp_path, *time)
    assert timed.returncode == 0 and "measured again, in turn, by" in timed.stdout
    assert before == {path: path.read_text() for path in folder.glob("points/*/metrics.jsonl")}
    again = json.loads((folder / "points" / "vit-uniform-8-seed0" / "costs.json").read_text())
    assert {name for name in costs if costs[name] != again[name]} == set(TIMES) and not list(folder.glob("timing-*"))
    assert reproduce("report", "--out", out).returncode == 0
    text = (out / "report.html").read_text()
    assert (
        "Adaptive tokens against uniform ones" in text and "data:image/png;base64" in text and 'src="http' not in text
    )


@pytest.mark.slow
@pytest.mark.parametrize("study", ["fine_grid", "schemes", "scaling_of_tokens", "long_sequences", "positions"])
def test_every_study_goes_from_its_data_to_its_figure_at_the_scale_tiny(study, tmp_path):
    result = reproduce(study, "--out", tmp_path, "--set", "train.steps=4", "--set", "train.warmup_steps=1", timeout=900)
    assert result.returncode == 0, result.stderr[-2000:]
    assert "correlation time" in result.stdout and (tmp_path / f"{study}-tiny" / "results.png").stat().st_size > 10_000
    assert ("a step of a rank" in result.stdout) == (study == "long_sequences")
