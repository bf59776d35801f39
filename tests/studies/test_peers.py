"""The comparison with other models."""

import pytest

from matey.peers.kinds import PEERS
from matey.studies.cases import COMPARED, Simulated, StudyError
from matey.studies.engine import claim
from matey.studies.peers import Comparison, points_of
from matey.studies.table import results_figure, results_table
from tests.support.paths import ROOT

PATHS = {"shallow_water": "data/water", "diffusion_reaction": "data/reaction"}


def comparison(out, points=(), **how):
    return Comparison(work=ROOT, out=out, paths=PATHS, points=points, **how)


def test_some_models_are_chosen_by_name():
    assert COMPARED[: len(PEERS)] == PEERS
    names = [point.name for point in points_of(tuple(PATHS), [10], 1, ["cells", "joint"])]
    assert names == ["cells-shallow_water-10-0", "cells-diffusion_reaction-10-0", "matey-joint-10-0"]


def test_the_cells_alone_are_trained_as_matey_is_without_tokens(tmp_path):
    points = points_of(("shallow_water",), [10], 1)
    settings = ("tokens.patches=[[1, 1, 32, 16], [1, 1, 8, 8]]", "train.learning_rate=3e-4")
    study = comparison(tmp_path, points, settings=settings)
    cells, matey = (study.run_config(point) for point in points[-2:])
    assert (cells.model.network, cells.tokens.set, cells.tokens.patches) == ("cells", "uniform", ((1, 1, 32, 16),))
    assert cells.train == matey.train and matey.model.network != "cells" and len(matey.tokens.patches) == 2


def test_a_folder_goes_on_with_the_data_that_it_was_begun_with(tmp_path):
    def take(num_frames):
        claim(tmp_path, comparison(tmp_path, simulated=(Simulated("shallow_water", 32, 4, num_frames),)).facts)
        (tmp_path / "points" / "begun").mkdir(parents=True, exist_ok=True)

    take(13)
    take(13)
    with pytest.raises(StudyError, match="choose another --out"):
        take(14)


def test_each_model_has_errors_on_each_system_with_their_deviation_over_the_seeds(tmp_path):
    points = points_of(tuple(PATHS), [30, 110], 2)
    study = comparison(tmp_path, points)
    assert study.plan().startswith("60 trainings (stencil, ") and f"{2 * 140 * 16 / 3600:.3g} hours" in study.plan()
    rows = [
        {"series": point.series, "label": f"{point.seconds:g} s", "seed": point.seed, "system": system}
        | {"forecast": "lead 1", "ratio": 0.1 + 0.1 * point.seed, "seconds": point.seconds, "parameters": 1e6}
        for point in points
        for system in point.systems
    ]
    table = results_table(rows, study.columns, by_system=True)
    assert "shallow_water, lead 1" in table and len(table.splitlines()) == 2 + 2 * 8
    assert "MATEY joint, 110 s" in table and table.count("0.150 ± 0.071") == 2 * 2 * 8
    assert len(results_figure(study.panels(rows), study.columns).axes) == 2
