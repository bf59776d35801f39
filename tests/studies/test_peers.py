"""The comparison with other models."""

import pytest

from matey.peers.kinds import PEERS
from matey.studies.cases import COMPARED, Simulated, StudyError
from matey.studies.engine import claim
from matey.studies.peers import COSTS, Comparison, points_of
from tests.support.paths import ROOT

PATHS = {"shallow_water": "data/water", "diffusion_reaction": "data/reaction"}


def test_some_models_are_chosen_by_name():
    assert COMPARED[: len(PEERS)] == PEERS
    names = [point.name for point in points_of(tuple(PATHS), [10], 1, ["cells", "joint"])]
    assert names == ["cells-shallow_water-10-0", "cells-diffusion_reaction-10-0", "matey-joint-10-0"]


def test_the_cells_alone_are_trained_as_matey_is_without_tokens(tmp_path):
    points = points_of(("shallow_water",), [10], 1)
    settings = ("tokens.patches=[[1, 1, 32, 16], [1, 1, 8, 8]]", "train.learning_rate=3e-4")
    study = Comparison(ROOT, tmp_path, settings, PATHS, "cpu", points)
    cells, matey = (study.run_config(point) for point in points[-2:])
    assert (cells.model.network, cells.tokens.set, cells.tokens.patches) == ("cells", "uniform", ((1, 1, 32, 16),))
    assert cells.train == matey.train and matey.model.network != "cells" and len(matey.tokens.patches) == 2


def test_a_folder_goes_on_with_the_data_that_it_was_begun_with(tmp_path):
    def take(num_frames):
        data = (Simulated("shallow_water", 32, 4, num_frames),)
        claim(tmp_path, Comparison(ROOT, tmp_path, (), PATHS, "cpu", (), simulated=data).facts)
        (tmp_path / "points" / "begun").mkdir(parents=True, exist_ok=True)

    take(13)
    take(13)
    with pytest.raises(StudyError, match="choose another --out"):
        take(14)


def test_matey_stands_over_each_peer_of_the_same_cost_on_each_system(tmp_path):
    points = points_of(tuple(PATHS), [30, 110], 2)
    study = Comparison(ROOT, tmp_path, (), PATHS, "cpu", points)
    assert (
        study.plan() == f"60 trainings, {2 * 140 * 16 / 3600:.3g} hours of CPU time, without their starts and scores."
    )
    rows = [
        {
            "series": point.series,
            "label": f"{point.seconds:g} s",
            "seed": point.seed,
            "system": system,
            "forecast": "lead 1",
        }
        | {"ratio": 0.1 if point.series.startswith("MATEY") else 0.2}
        | dict.fromkeys(COSTS, 1.0)
        for point in points
        for system in point.systems
    ]
    errors, over = study.text(rows).split("\n\n")
    assert "shallow_water, lead 1" in errors and len(errors.splitlines()) == 2 + 2 * 8
    head, _, *lines = over.splitlines()
    assert len(lines) == 2 * 2 * 6 and all("0.50 ± 0.00  " in line for line in lines)
    assert lines[0].split()[:5] == ["stencil,", "30", "s", "MATEY", "per"]
    assert len(study.figure(rows).axes) == 2
