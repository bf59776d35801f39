"""The studies, as commands."""

import csv
import sys
from itertools import product

import pytest
import torch

from matey import MateyConfig, MateyModel
from matey.config import load_config
from matey.studies.data_efficiency import DataEfficiencyStudy, points_of
from tests.support.laws import law
from tests.support.paths import ROOT
from tests.support.programs import start
from tests.support.small_files import write_swe


def study(out, *flags, **kwargs):
    return start([sys.executable, "tools/reproduce.py", "data_efficiency", "--out", out, *flags], **kwargs)


def test_a_mistake_is_one_sentence(tmp_path):
    result = study(tmp_path / "study", "--scale", "paper", "--sizes", "1")
    assert result.returncode == 2 and "error: --scale paper needs --pretrained RUN_OR_MODEL." in result.stderr
    assert "Traceback" not in result.stderr


def run_of(command):
    """Return the YAML of a fine-tuning command, and the run that it starts."""
    value_of = dict(zip(command, command[1:], strict=False))
    settings = [value for flag, value in zip(command, command[1:], strict=False) if flag == "--set"]
    flags = [f"finetune.train={value_of['--train']}", f"data.trajectories={value_of['--trajectories']}"]
    return value_of["--config"], load_config(value_of["--config"], [*settings, *flags])


def test_a_run_from_random_weights_has_the_network_and_rates_of_its_pretrained_twin(tmp_path):
    config = MateyConfig.from_size("micro", fields=("density", "water_height"), history=3)
    MateyModel(config).save_pretrained(tmp_path / "old")
    write_swe(tmp_path / "swe" / "2D_rdb_NA_NA.h5", 8)
    points = points_of(["pretrained", "random"], ["all", "prepost"], [1, 6], 2)
    settings = ("train.accumulation=8", f"data.sets=[{{path: {tmp_path / 'swe'}}}]", "data.lead_max=5")
    old = str(tmp_path / "old")
    study = DataEfficiencyStudy(ROOT, tmp_path / "out", "thermals", "paper", points, old, settings=settings)
    study.out.mkdir()
    study.prepare(study.points)
    rates = {"prepost": (1e-4, 1e-3), "all": (5e-5, 0)}
    for point in points:
        config, run = run_of(study.finetuning(point))
        assert (run.train.learning_rate, run.train.weight_decay) == rates[point.mode], point
        assert (run.train.accumulation, run.train.seed) == (8, point.seed)
        assert run.output.dir == str(tmp_path / "out" / "points" / point.name)
        assert (run.finetune.train, run.data.trajectories) == (point.mode, point.trajectories)
        if point.start == "random":
            assert config == str(tmp_path / "out" / "networks" / f"{point.mode}.yaml")
            assert (run.model.size, run.model.fields) == ("micro", ("density", "water_height"))
        else:
            assert run.model.fields is None


TOO_FEW = (
    "holds 30 trajectories or blocks, 24 of them to train on; --sizes asks for 25, which needs 31 trajectories in all.",
    ["--sizes", "1,25"],
)
REFUSED = [
    TOO_FEW,
    # The paper has 1 to 24 cavities: these are enough, and then too short.
    ("has a trajectory of 12 frames; a history of 10 and the lead 100, at which runs are scored, need 110.", []),
    ("nowhere does not exist", ["--set", "data.sets=[{path: nowhere}]"]),
    ("data_efficiency at the scale paper is meant for 64 ranks, but would be trained on one: ", ["--ranks", "64"]),
]


@law(("words", "more"), REFUSED, quick=[TOO_FEW])
def test_too_few_or_too_short_trajectories_are_refused_before_anything_runs(tmp_path, run_here, words, more):
    write_swe(tmp_path / "swe" / "2D_rdb_NA_NA.h5", 30)
    flags = "--system mhd --scale paper --starts random --ranks 1 --out".split()
    flags += [tmp_path / "study", "--set", f"data.sets=[{{path: {tmp_path / 'swe'}}}]"]
    status, _, said = run_here("tools/reproduce.py", "data_efficiency", *flags, *more)
    assert status == 2
    assert said.startswith("error: ") and words in said and not (tmp_path / "study").exists()


@pytest.mark.slow
def test_a_study_goes_on_where_it_stopped_and_ends_with_table_and_plot(tmp_path):
    torch.manual_seed(0)
    patches = ((2, 1, 16, 16), (2, 1, 8, 8))
    config = MateyConfig.from_size("micro", fields=("water_height",), tokens={"patches": patches}, history=2)
    MateyModel(config).save_pretrained(tmp_path / "old")
    flags = ["--sizes", "1", "--modes", "head", "--seeds", "1", "--pretrained", tmp_path / "old"]
    result = study(tmp_path / "study", *flags, "--starts", "pretrained", timeout=600)
    assert result.returncode == 0, result.stderr
    folder = tmp_path / "study" / "data_efficiency-thermals-tiny"
    done = folder / "points" / "pretrained-head-1-0" / "rows.json"
    before = done.stat().st_mtime_ns
    result = study(tmp_path / "study", *flags, "--starts", "pretrained,random,stencil", timeout=600)
    assert result.returncode == 0, result.stderr
    assert done.stat().st_mtime_ns == before
    with (folder / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    forecasts = ("lead 1", "lead 5", "rollout 10", "rollout 10 by 5")
    assert [(row["start"], row["forecast"]) for row in rows] == [
        *product(("pretrained", "random", "stencil"), forecasts)
    ]
    assert (folder / "results.png").stat().st_size > 10_000
    # The random start has the pretrained model's vocabulary, of which the data holds no field.
    random = MateyModel.from_pretrained(folder / "points" / "random-head-1-0" / "model")
    assert random.config.fields[0] == "water_height"
    result = study(tmp_path / "study", *flags, "--set", "train.steps=41")
    assert result.returncode == 2 and "holds a study with" in result.stderr
