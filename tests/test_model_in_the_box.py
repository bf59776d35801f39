"""The model that comes with the project, on a trajectory simulated here, which it has not seen."""

import json
import sys

import pytest

from matey.checkpoints.trained import load_trained
from matey.simulate.ensemble import make
from matey.simulate.systems import SYSTEMS
from tests.conftest import ROOT, start

MODEL = ROOT / "models" / "matey-micro"


@pytest.mark.parametrize(("system", "at_most"), [("shallow_water", 0.2), ("diffusion_reaction", 0.2)])
def test_it_forecasts_a_new_trajectory_far_better_than_persistence(system, at_most, tmp_path):
    ensemble = SYSTEMS[system].ensemble(num_trajectories=1, resolution=64, num_frames=31, first_seed=12345)
    make(tmp_path / system, ensemble)
    command = [sys.executable, "launch/evaluate.py", "--checkpoint", MODEL, "--data", tmp_path / system]
    command += ["--out", tmp_path / "report", "--max-windows", "16", "--rollout", "0"]
    result = start(command)
    assert result.returncode == 0, result.stderr
    records = json.loads((tmp_path / "report" / "metrics.json").read_text())
    ratios = [record["nrmse"] / record["persistence_nrmse"] for record in records if record["field"] == "all"]
    assert len(ratios) == 2 and max(ratios) < at_most


def test_it_is_small_and_says_where_it_comes_from():
    assert sum(file.stat().st_size for file in MODEL.iterdir()) < 4e6
    assert load_trained(MODEL).lead_max == 5  # by its card, for rollouts
    card = (MODEL / "README.md").read_text()
    assert all(system in card for system in ("shallow_water", "compressible_turb", "incompressible"))
