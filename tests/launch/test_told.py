"""Runs whose network is told a forcing and parameters, from a described file to a forecast."""

import numpy as np
import pytest
import torch
import xarray
import yaml

import matey
from matey import MateyConfig, MateyModel
from matey.checkpoints.trained import load_trained
from matey.config import load_config
from matey.data import open_dataset
from matey.train.finetune import finetune
from tests.support.described_files import describe, flow
from tests.support.programs import TWO_RANKS
from tests.support.runs import metrics, pretrain, succeed

GIVEN = ["wind", "depth"]


@pytest.fixture
def site(tmp_path):
    """Described data of waves with a wind, a depth and a viscosity."""
    random = np.random.default_rng(0)
    axes = ("sample", "time", "y", "x")
    wind = random.normal(size=(10, 12, 16, 16)).cumsum(axis=3)
    fields = {"h": (axes, 1 + 0.1 * wind.cumsum(axis=1)), "f": (axes, wind), "d": (axes[2:], random.random((16, 16)))}
    xarray.Dataset({**fields, "nu": ("sample", random.random(10))}).to_netcdf(tmp_path / "a.nc")
    given = {"wind": "f", "depth": {"array": "d", "axes": ["y", "x"]}}
    about = {"fields": {"height": "h"}, "given": given, "parameters": {"nu": {"array": "nu"}}}
    describe(tmp_path, flow("trajectory time y x", "open", system="waves", **about))
    return tmp_path


def run_of(site, name, **sections):
    """Write a run YAML."""
    tree = {
        "model": {"size": "micro", "given": GIVEN, "parameters": ["nu"]},
        "tokens": {"set": "mix", "patches": [[1, 1, 8, 8], [1, 1, 4, 4]]},
        "data": {"sets": [{"path": str(site)}], "history": 2, "lead_max": 2},
        "train": {"steps": 4, "micro_batch": 4, "unroll": 1, "unroll_share": 0.5, "validation_windows": 4},
        "output": {"dir": str(site / name)},
    }
    (site / f"{name}.yaml").write_text(yaml.safe_dump({**tree, **sections}))
    return site / f"{name}.yaml"


def test_ranks_that_read_parts_train_as_one_process_given_fields_and_bad_values(site):
    with xarray.load_dataset(site / "a.nc") as data:
        data["h"][::2, 6, 14, 3] = np.nan
        data["f"][1::2, 8, 1, 2] = np.nan
        data.to_netcdf(site / "a.nc")
    skipping = {"data": {"sets": [{"path": str(site)}], "history": 2, "lead_max": 2, "bad_values": "skip"}}
    one, two = run_of(site, "one", **skipping), run_of(site, "two", **skipping, parallel={"sequence_parallel_size": 2})
    succeed(pretrain(one))
    succeed(pretrain(two, launcher=TWO_RANKS))
    for key in ("loss", "valid_nrmse"):
        expected, found = (metrics(site / name, key) for name in ("one", "two"))
        assert found == pytest.approx(expected, rel=1e-4) and len(expected) > (key == "loss"), key


def test_a_run_is_told_a_forcing_and_parameters_and_so_is_its_forecast(site):
    config = run_of(site, "run", parallel={"sequence_parallel_size": 2})
    succeed(pretrain(config, launcher=TWO_RANKS))
    trained = load_trained(site / "run")
    network = trained.model.config
    assert (network.fields, network.given, network.parameters) == (["height", *GIVEN], GIVEN, ["nu"])
    assert trained.model.told.contract.weight.abs().max() > 0
    data = open_dataset(site)
    frames = list(matey.forecast(trained, data, steps=5, trajectories=[3]))
    assert frames[-1].values.shape == (1, 1, 1, 16, 16)
    without = list(matey.forecast(trained, data.with_given(()), steps=5, trajectories=[3]))
    assert not torch.equal(frames[0].values, without[0].values)


def test_fine_tuning_tells_a_pretrained_model_what_it_never_heard_of(site):
    torch.manual_seed(0)
    tokens = {"patches": [(1, 1, 8, 8), (1, 1, 4, 4)]}
    MateyModel(MateyConfig.from_size("micro", fields=("height",), tokens=tokens, history=2)).save_pretrained(
        site / "old"
    )
    config = run_of(
        site, "new", model={"given": GIVEN, "parameters": ["nu"]}, finetune={"pretrained": str(site / "old")}
    )
    lines = []
    finetune(load_config(config), {}, lines.append, only_describe=True)
    said = "\n".join(lines)
    assert "New fields: wind (zero), depth (zero)." in said
    assert "New parameters: nu; they change no forecast before they are trained." in said
