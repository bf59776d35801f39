"""Studies that pretrain many models: their folders, plans and comparisons."""

import pytest

from matey.config import ConfigError
from matey.studies.cases import PRETRAININGS, StudyError
from matey.studies.engine import ROWS
from matey.studies.pretraining import PretrainingStudy, points_of
from tests.support.paths import ROOT

ENGINE = str(ROOT / "ds_configs" / "frontier_zero1.json")


def study_of(name, scale, out, seeds=None, models=None, **how):
    table = PRETRAININGS[name].tables[scale]
    points = points_of(table, seeds, models)
    return PretrainingStudy(ROOT, out, name, scale, points, **{"ranks": table.ranks} | how)


def test_models_that_are_named_are_trained_and_a_name_that_is_none_is_refused():
    table = PRETRAININGS["schemes"].tables["laptop"]
    found = points_of(table, 2, "avit-micro,vit-Ti")
    assert [point.name for point in found] == ["vit-Ti-seed0", "avit-micro-seed0", "vit-Ti-seed1", "avit-micro-seed1"]
    with pytest.raises(StudyError, match="--models: the study has no model 'vit-L'; it has vit-micro, "):
        points_of(table, 2, "vit-L")


def test_a_study_at_the_papers_scale_says_what_each_model_and_all_cost(tmp_path):
    models, how = "vit-Ti,vit-S,vit-B", {"deepspeed_config": ENGINE, "machine": "frontier"}
    study = study_of("schemes", "paper", tmp_path, models=models, **how)
    head, columns, _, *lines, last = study.plan().splitlines()
    assert head == "On frontier, 736 ranks on 92 nodes, 1472 samples a step:"
    assert columns.split()[:3] == ["trainings", "weights", "tokens"]
    assert [line.split()[:2] for line in lines] == [["vit-Ti", "3"], ["vit-S", "3"], ["vit-B", "3"]]
    total = sum(float(line.split()[-1].replace(",", "")) for line in lines)
    assert last.startswith("9 trainings, ") and "since the data is not there yet" in last
    assert float(last.split()[2].replace(",", "")) == pytest.approx(total, rel=0.01) and total > 100


def test_models_that_do_not_fit_and_machines_that_are_too_small_are_said(tmp_path):
    models, float32 = "vit-B", str(ROOT / "ds_configs" / "zero1.json")
    text = study_of("schemes", "paper", tmp_path, 1, models, ranks=1, deepspeed_config=float32).plan()
    assert text.splitlines()[-1] == "More memory than there is: vit-B."
    with pytest.raises(ConfigError, match="125000 nodes of Frontier"):
        study_of(
            "schemes", "paper", tmp_path, 1, models, machine="frontier", ranks=10**6, deepspeed_config=ENGINE
        ).plan()


def test_data_of_points_that_are_done_are_not_simulated_anew(tmp_path, monkeypatch):
    """So that a folder of results alone can be drawn, and added to, on another machine."""
    study, made = study_of("scaling_of_tokens", "laptop", tmp_path, 1), []
    monkeypatch.setattr("matey.studies.pretraining.simulate", lambda data, *_: made.append(data.resolution))
    for point in study.points[:6]:
        study.folder(point).mkdir(parents=True)
        (study.folder(point) / ROWS).touch()
    study.prepare(study.waiting)
    assert made == [256, 512]


def row(case, series, label, persistence=0.5):
    return {"case": case, "series": series, "label": label, "persistence_nrmse": persistence}


def test_models_are_compared_on_the_same_windows_and_within_a_scheme_or_label(tmp_path):
    study = study_of("adaptivity", "laptop", tmp_path)
    rows = [
        row("vit-uniform-16", "vit uniform", "16"),
        row("vit-mix-32-to-8-0.1", "vit mix 32 to 8", "0.1"),
        row("svit-uniform-16", "svit uniform", "16"),
        row("vit-uniform-of-one-frame-16", "vit uniform of one frame", "16", 0.45),  # a longer history begins later
        row("vit-mix-by-variance-32", "vit mix by variance", "32"),
        row("vit-mix-by-random-32", "vit mix by random", "32"),
        row("vit-uniform-32", "vit uniform", "32"),
    ]
    pairs = study.pairs(rows)
    assert {name for name, other in pairs if other == "vit uniform, 16"} == {
        *("vit mix 32 to 8, 0.1", "vit mix by variance, 32", "vit mix by random, 32", "vit uniform, 32")
    }
    assert [name for name, other in pairs if other == "vit mix by random, 32"] == ["vit mix by variance, 32"]
    assert not any(other.startswith("svit") for _, other in pairs)
