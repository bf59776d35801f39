"""The comparison with other models: which of its points are shown, and what its folder is told by."""

import pytest

from matey.studies.folder import StudyError, claim
from matey.studies.peers.points import points_of
from matey.studies.peers.running import Comparison
from matey.studies.simulated import Simulated
from tests.support.paths import ROOT


def test_points_of_other_calls_are_shown_whichever_costs_and_seeds_a_call_names(tmp_path):
    paths = {system: f"data/{system}" for system in ("shallow_water", "diffusion_reaction")}
    before, now = points_of(tuple(paths), [30, 110], 2), points_of(tuple(paths), [10], 1)
    study = Comparison(ROOT, tmp_path, ROOT / "launch/runs/demo.yaml", (), paths, "cpu", now)
    assert [point.name for point in study.shown] == [point.name for point in now]
    for point in before:
        study.folder(point).mkdir(parents=True)
    (tmp_path / "points" / f"{before[0].name}.bak").mkdir()
    assert {point.name for point in study.shown} >= {point.name for point in (*before, *now)}
    assert {point.seconds for point in study.shown} == {10, 30, 110}


def test_the_cells_alone_are_trained_as_matey_is_without_tokens(tmp_path):
    points = points_of(("shallow_water",), [10], 1)
    settings = ("tokens.patches=[[1, 1, 32, 16], [1, 1, 8, 8]]", "train.learning_rate=3e-4")
    study = Comparison(
        ROOT, tmp_path, ROOT / "launch/runs/demo.yaml", settings, {"shallow_water": "data"}, "cpu", points
    )
    cells, matey = (study.run_config(point) for point in points[-2:])
    assert (cells.model.network, cells.tokens.set, cells.tokens.patches) == ("cells", "uniform", ((1, 1, 32, 16),))
    assert cells.train == matey.train and matey.model.network != "cells" and len(matey.tokens.patches) == 2


def test_a_cost_that_its_folder_shortens_is_shown_once(tmp_path):
    (point, *_) = points = points_of(("shallow_water",), [100 / 3], 1)
    study = Comparison(ROOT, tmp_path, ROOT / "launch/runs/demo.yaml", (), {"shallow_water": "data"}, "cpu", points)
    study.folder(point).mkdir(parents=True)
    assert study.shown == points


def test_a_folder_goes_on_with_the_data_and_settings_that_it_was_begun_with(tmp_path):
    def take(config, num_frames):
        data = (Simulated("shallow_water", 32, 4, num_frames),)
        paths = {"shallow_water": "data"}
        claim(tmp_path, Comparison(ROOT, tmp_path, config, (), paths, "cpu", (), simulated=data).facts)
        (tmp_path / "points" / "begun").mkdir(parents=True, exist_ok=True)

    config, text = tmp_path / "run.yaml", (ROOT / "launch/runs/demo.yaml").read_text(encoding="utf-8")
    config.write_text(text, encoding="utf-8")
    take(config, 13)
    config.write_text(f"# a comment\n{text}", encoding="utf-8")
    take(config, 13)
    with pytest.raises(StudyError, match="choose another --out"):
        take(config, 14)
    config.write_text(text.replace("micro_batch: ", "micro_batch: 1"), encoding="utf-8")
    with pytest.raises(StudyError, match="choose another --out"):
        take(config, 13)
