"""The studies, as commands."""

import csv
import json
import subprocess
import sys
from itertools import product

import pytest
import torch

from matey import MateyConfig, MateyModel
from matey.config import load_config
from matey.studies.data_efficiency import DataEfficiencyStudy, points_of
from tests.support.paths import ROOT
from tests.support.programs import clean_environment, start
from tests.support.small_files import write_swe, write_waves

SHORT = ["--set", "train.steps=4", "--set", "train.warmup_steps=1"]


def reproduce(*flags, **kwargs):
    return start([sys.executable, "tools/reproduce.py", *flags], **kwargs)


def rows_of(folder):
    with (folder / "results.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def waves(tmp_path_factory):
    """Return two small sets as --data takes them."""
    folder = tmp_path_factory.mktemp("waves")
    systems = ("shallow_water", "diffusion_reaction")
    return ",".join(str(write_waves(folder / system, system, num_trajectories=10, num_frames=13)) for system in systems)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["schemes", "--set", "train.seed=3"], "--set train.seed: a study gives each training its own"),
        (["adaptivity", "--scale", "paper"], "is meant for 32 ranks: give the command that starts them"),
        (["data_efficiency", "--scale", "paper", "--ranks", "1"], "--scale paper needs --pretrained RUN_OR_MODEL."),
        (["data_efficiency", "--set", "data.sets=[]"], "this scale simulates its data"),
        (["peers", "--data", "nowhere"], "nowhere does not exist"),
        (["peers", "--set", "model.parameters=[gravity]"], "tell MATEY what the peers cannot be told; compare without"),
        (["scaling", "--ranks", "1", "--config", "nowhere.yaml"], "Cannot read the configuration nowhere.yaml"),
    ],
)
def test_a_mistake_is_one_sentence_before_anything_runs(flags, words, run_here, tmp_path):
    status, _, said = run_here("tools/reproduce.py", *flags, "--out", tmp_path)
    assert status == 2 and said.startswith("error: ") and words in said and not list(tmp_path.iterdir())


def test_plans_name_models_and_costs_and_single_flags_win_over_scales(run_here, tmp_path):
    flags = ["--out", tmp_path, "--plan"]
    assert "svit-micro" in run_here("tools/reproduce.py", "schemes", *flags)[1]
    _, laptop, _ = run_here("tools/reproduce.py", "peers", *flags, "--seconds", "60", "--models", "cells,MATEY")
    assert laptop.startswith("12 trainings (cells, MATEY per system), 0.2 hours") and not list(tmp_path.iterdir())


def test_a_run_from_random_weights_has_the_network_and_rates_of_its_pretrained_twin(tmp_path):
    config = MateyConfig.from_size("micro", fields=("density", "water_height"), history=3)
    MateyModel(config).save_pretrained(tmp_path / "old")
    write_swe(tmp_path / "swe" / "2D_rdb_NA_NA.h5", 8)
    points = points_of(["pretrained", "random"], ["all", "prepost"], [1, 6], 2)
    settings = ("train.accumulation=8", f"data.sets=[{{path: {tmp_path / 'swe'}}}]", "data.lead_max=5")
    about = {"system": "thermals", "scale": "paper", "pretrained": str(tmp_path / "old"), "settings": settings}
    study = DataEfficiencyStudy(work=ROOT, out=tmp_path / "out", points=points, **about)
    study.out.mkdir()
    study.prepare(study.points)
    rates = {"prepost": (1e-4, 1e-3), "all": (5e-5, 0)}
    for point in points:
        how = study.finetuning(point)
        flags = [f"finetune.train={how['train']}", f"data.trajectories={how['trajectories']}"]
        run = load_config(how["config"], [*how["settings"], *flags])
        assert (run.train.learning_rate, run.train.weight_decay) == rates[point.mode], point
        assert (run.train.accumulation, run.train.seed) == (8, point.seed)
        assert run.output.dir == str(tmp_path / "out" / "points" / point.name)
        assert (run.finetune.train, run.data.trajectories) == (point.mode, point.trajectories)
        if point.start == "random":
            assert how["config"] == tmp_path / "out" / "networks" / f"{point.mode}.yaml"
            assert (run.model.size, run.model.fields) == ("micro", ("density", "water_height"))
        else:
            assert run.model.fields is None


@pytest.mark.slow
def test_a_study_goes_from_its_data_to_its_figure_and_goes_on_where_it_was(tmp_path):
    """In a folder relative to the caller's, whose name means something in YAML, and of which a file of the data is lost."""
    flags = ["adaptivity", "--out", "runs, # {mine}", *SHORT]

    def run(*more):
        command = [sys.executable, ROOT / "tools/reproduce.py", *flags, *more]
        result = subprocess.run(command, cwd=tmp_path, env=clean_environment(), capture_output=True, text=True)
        assert result.returncode == 0, result.stderr[-2000:]
        return result.stdout

    assert "vit mix 16 to 8, 0.2" in run()
    out = tmp_path / "runs, # {mine}"
    folder = out / "adaptivity-tiny"
    rows = folder / "points" / "vit-uniform-8-seed0" / "rows.json"
    assert {row["tokens"] for row in json.loads(rows.read_text())["rows"]} == {32}
    rows.unlink()
    lost = sorted((out / "data").glob("*/*.nc"))[-1]
    content = lost.read_bytes()
    lost.unlink()
    before = {path: path.read_text() for path in folder.glob("points/*/metrics.jsonl")}
    run("--point", "vit-uniform-8-seed0")
    assert lost.read_bytes() == content and rows.exists() and (folder / "results.png").stat().st_size > 10_000
    assert before == {path: path.read_text() for path in folder.glob("points/*/metrics.jsonl")}


@pytest.mark.slow
@pytest.mark.parametrize("study", ["fine_grid", "schemes"])
def test_every_study_goes_from_its_data_to_its_figure_at_the_scale_tiny(study, tmp_path):
    result = reproduce(study, "--out", tmp_path, *SHORT, timeout=900)
    assert result.returncode == 0, result.stderr[-2000:]
    assert (tmp_path / f"{study}-tiny" / "results.png").stat().st_size > 10_000


@pytest.mark.slow
def test_data_efficiency_adds_starts_to_what_is_done_and_ends_with_table_and_plot(tmp_path):
    torch.manual_seed(0)
    patches = ((2, 1, 16, 16), (2, 1, 8, 8))
    config = MateyConfig.from_size("micro", fields=("water_height",), tokens={"patches": patches}, history=2)
    MateyModel(config).save_pretrained(tmp_path / "old")
    flags = ["data_efficiency", "--sizes", "1", "--modes", "head", "--out", tmp_path, "--pretrained", tmp_path / "old"]
    result = reproduce(*flags, "--starts", "pretrained", timeout=600)
    assert result.returncode == 0, result.stderr
    folder = tmp_path / "data_efficiency-thermals-tiny"
    done = folder / "points" / "pretrained-head-1-0" / "rows.json"
    before = done.stat().st_mtime_ns
    result = reproduce(*flags, "--starts", "pretrained,random,stencil", timeout=600)
    assert result.returncode == 0, result.stderr
    assert done.stat().st_mtime_ns == before
    forecasts = ("lead 1", "lead 5", "rollout 10", "rollout 10 by 5")
    found = [(row["series"], row["forecast"]) for row in rows_of(folder)]
    assert found == [*product(("pretrained, head", "random, head", "stencil"), forecasts)]
    # The random start has the pretrained model's vocabulary, of which the data holds no field.
    random = MateyModel.from_pretrained(folder / "points" / "random-head-1-0" / "model")
    assert random.config.fields[0] == "water_height"


@pytest.mark.slow
def test_a_comparison_goes_on_where_it_stopped_and_ends_with_table_and_plot(waves, tmp_path):
    flags = ["peers", "--data", waves, "--seconds", "2", "--scale", "tiny", "--out", tmp_path]
    flags += ["--set", "data.lead_max=3", "--set", "train.validation_windows=8"]
    result = reproduce(*flags, timeout=900)
    assert result.returncode == 0, result.stderr
    assert "rollout 10 by 3" in result.stdout
    folder = tmp_path / "peers-tiny"
    rows = rows_of(folder)
    assert len(rows) == (7 * 2 + 2) * 4
    assert all(float(row["seconds"]) > 0 and int(row["parameters"]) > 0 for row in rows)
    results = {path: path.stat().st_mtime_ns for path in (folder / "points").glob("*/rows.json")}
    assert len(results) == 7 * 2 + 1
    lost = next(path for path in results if "unet-shallow_water" in str(path))
    lost.unlink()
    again = reproduce(*flags, timeout=600)
    assert again.returncode == 0, again.stderr
    assert [path for path, time in results.items() if path.stat().st_mtime_ns != time] == [lost]
    refused = reproduce(*flags, "--data", waves.split(",")[0])
    assert refused.returncode == 2 and "holds a study with" in refused.stderr
