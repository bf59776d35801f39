"""Studies that pretrain many models: their folders and plans."""

import pytest

from matey.config import ConfigError
from matey.studies.cases import PRETRAININGS, StudyError
from matey.studies.engine import ROWS
from matey.studies.pretraining import PretrainingStudy, points_of
from matey.studies.trainings import COLUMNS
from tests.support.paths import ROOT

ENGINE = str(ROOT / "ds_configs" / "frontier_zero1.json")


def study_of(name, scale, out, seeds=None, models=None, **how):
    size = PRETRAININGS[name].scales[scale]
    how = {"ranks": size.ranks} | how
    return PretrainingStudy(work=ROOT, out=out, name=name, scale=scale, points=points_of(size, seeds, models), **how)


def test_models_that_are_named_are_trained_and_a_name_that_is_none_is_refused():
    size = PRETRAININGS["schemes"].scales["laptop"]
    found = points_of(size, 2, "avit-micro,vit-Ti")
    assert [point.name for point in found] == ["vit-Ti-seed0", "avit-micro-seed0", "vit-Ti-seed1", "avit-micro-seed1"]
    with pytest.raises(StudyError, match="--models: the study has no model 'vit-L'; it has vit-micro, "):
        points_of(size, 2, "vit-L")


def test_a_study_at_the_papers_scale_says_what_each_model_and_all_cost(tmp_path):
    models, how = "vit-Ti,vit-S,vit-B", {"deepspeed_config": ENGINE, "machine": "frontier"}
    head, columns, _, *lines, last = study_of("schemes", "paper", tmp_path, models=models, **how).plan().splitlines()
    assert head == "On frontier, 736 ranks on 92 nodes, 1472 samples a step:"
    assert columns.split()[:3] == ["trainings", "weights", "tokens"]
    assert [line.split()[:2] for line in lines] == [["vit-Ti", "3"], ["vit-S", "3"], ["vit-B", "3"]]
    total = 3 * sum(float(line.split()[-1]) for line in lines)
    assert last.startswith("9 trainings, ")
    assert float(last.split()[2].replace(",", "")) == pytest.approx(total, rel=0.01) and total > 100


def test_models_that_do_not_fit_and_machines_that_are_too_small_are_said(tmp_path):
    float32 = str(ROOT / "ds_configs" / "zero1.json")
    text = study_of("schemes", "paper", tmp_path, 1, "vit-B", ranks=1, deepspeed_config=float32).plan()
    assert "more than there is" in text
    how = {"machine": "frontier", "ranks": 10**6, "deepspeed_config": ENGINE}
    with pytest.raises(ConfigError, match="125000 nodes of Frontier"):
        study_of("schemes", "paper", tmp_path, 1, "vit-B", **how).plan()


def test_data_of_points_that_are_done_are_not_simulated_anew(tmp_path, monkeypatch):
    """So that a folder of results alone can be drawn, and added to, on another machine."""
    study, made = study_of("scaling_of_tokens", "laptop", tmp_path, 1), []
    monkeypatch.setattr(PretrainingStudy, "simulate", lambda self, data: made.append(data.resolution))
    for point in study.points[:6]:
        study.folder(point).mkdir(parents=True)
        (study.folder(point) / ROWS).touch()
    study.prepare(study.waiting)
    assert made == [256, 512]


@pytest.mark.parametrize(("name", "shape"), [("adaptivity", (2, 3)), ("scaling_of_tokens", (1, 4))])
def test_errors_stand_over_costs_and_costs_of_larger_grids_over_cells(name, shape, tmp_path):
    study = study_of(name, "laptop", tmp_path)
    rows = [
        {"series": "a", "label": "64", "forecast": forecast, "ratio": 0.1, "system": "b"} | dict.fromkeys(COLUMNS, 1.0)
        for forecast in ("lead 1", "lead 5", "rollout 10")
    ]
    panels = study.panels(rows)
    assert (len(panels), len(panels[0])) == shape and panels[-1][-1].y == "ratio"
