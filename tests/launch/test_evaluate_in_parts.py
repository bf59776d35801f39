"""Evaluation by ranks that share each forecast: none has the fields whole."""

import json

import h5py
import numpy as np
import pytest
import torch

from tests.support.described_files import describe, flow
from tests.support.models import PATCHES, make_model
from tests.support.paths import ROOT
from tests.support.programs import start_ranks
from tests.support.small_files import write_waves


@pytest.fixture
def command(tmp_path):
    """Return a command that evaluates a model on waves in the plane, and on dyes that keep their total."""
    write_waves(tmp_path / "data", "shallow_water", num_trajectories=3)
    write_waves(tmp_path / "data", "diffusion_reaction", num_trajectories=2)
    (tmp_path / "data" / "dyes").mkdir()
    with h5py.File(tmp_path / "data" / "dyes" / "run.h5", "w") as file:
        file["dye"] = 1 + np.random.default_rng(0).random((16, 16, 16), dtype="f4")
    dyes = flow(system="dyes", files="run.h5", fields={"water_height": "dye"}, conserved=["water_height"])
    describe(tmp_path / "data" / "dyes", dyes)
    make_model(PATCHES, torch.float32).save_pretrained(tmp_path / "model")
    data = sorted((tmp_path / "data").iterdir())
    how = [
        "--leads",
        "1,3",
        "--rollout",
        "12",
        "--rollout-lead",
        "3",
        "--batch",
        "3",
        "--history",
        "2",
        "--max-windows",
        "4",
        "--threads",
        "1",
        "--conserve",
    ]
    return [ROOT / "launch/evaluate.py", "--checkpoint", tmp_path / "model", "--data", *data, *how]


def approximate(value):
    if isinstance(value, dict):
        return {name: approximate(each) for name, each in value.items()}
    # Forecasts are in float32, whose rounding is 1.2e-7 of a correlation near one, several times in a rollout.
    return pytest.approx(value, rel=1e-6, abs=5e-7) if isinstance(value, float) else value


@pytest.mark.usefixtures("without_page")
def test_ranks_that_share_each_forecast_find_the_errors_of_one_process(command, run_here, tmp_path):
    status, _, errors = run_here("launch/evaluate.py", *command[1:], "--out", tmp_path / "one")
    assert status == 0, errors
    two = start_ranks(2, *command, "--share", "2", "--out", tmp_path / "two")
    assert two.returncode == 0 and two.stdout.count("Report:") == 1 and "Traceback" not in two.stderr, two.stderr
    assert "Ranks held parts of the fields: there are no pictures" in two.stdout
    assert "Rollouts of dyes keep the totals of: water_height." in two.stdout
    assert "Rollouts of shallow_water keep no totals" in two.stdout
    report = (tmp_path / "two" / "report.html").read_text()
    assert "<h2>Rollouts</h2>" in report and "<h2>Adaptive mesh</h2>" not in report
    one, ours = (json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("one", "two"))
    assert len(ours) == len(one) and {row["kind"] for row in ours} == {"lead", "rollout", "rollout by 3"}
    drifts = {
        row["kind"]: row["physics"]["total_water_height"] for row in one if row["physics"] and row["system"] == "dyes"
    }
    assert max(drifts["rollout"], drifts["rollout by 3"]) < 1e-6 < drifts["lead"]
    for found, expected in zip(ours, one, strict=True):
        assert found.pop("seams") is None
        known = {n: value for n, value in expected["physics"].items() if "diverg" not in n and "power" not in n}
        expected["physics"] = known
        assert "seams" in expected and found == {name: approximate(expected[name]) for name in found}


def test_what_one_of_the_ranks_that_share_a_forecast_meets_ends_all(command, tmp_path):
    with h5py.File(next((tmp_path / "data").glob("*rdb*")), "r+") as file:
        file["0002/data"][5, -1, -1] = np.nan
    bad = start_ranks(2, *command, "--share", "2", "--out", tmp_path / "bad")
    assert bad.returncode == 2 and bad.stderr.count("error:") == 1 and "trajectory 0002" in bad.stderr, bad.stderr
