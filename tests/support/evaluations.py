"""Small files in PDEBench's layout in which something moves, and what an evaluation on them finds."""

import h5py
import numpy as np
import pytest
import torch

from matey.data import open_dataset
from matey.evaluate.evaluation import Protocol, evaluate, plan_tasks
from matey.evaluate.held_out import HeldOut
from tests.conftest import make_model

PATCHES = ((1, 1, 8, 8), (1, 1, 4, 4))
NAMES = {"shallow_water": "2D_rdb_NA_NA.h5", "diffusion_reaction": "2D_diff-react_NA_NA.h5"}
SIMULATION = {
    "shallow_water": "dam_radius: 0.5\n  gravity: 1.0",
    "diffusion_reaction": "Du: 0.001\n  Dv: 0.005\n  k: 0.005",
}


def write_waves(folder, system, num_trajectories=3, num_frames=12, size=16):
    """Write a bump that travels along x, each trajectory at its own speed; the second field is later than the first."""
    t, y, x, field = np.ogrid[:num_frames, :size, :size, : 1 if system == "shallow_water" else 2]
    path = folder / NAMES[system]
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for seed in range(num_trajectories):
            centre = size / 4 + 0.3 * (seed + 1) * (t - field)
            bump = 1 + np.exp(-((x - centre) ** 2 + (y - size / 2) ** 2) / 4)
            group = file.create_group(f"{seed:04d}")
            group.attrs["config"] = f"sim:\n  seed: {seed}\n  {SIMULATION[system]}\n"
            # PDEBench keeps shallow water as (t, x, y, f), diffusion-reaction as (t, y, x, f).
            group["data"] = (bump.transpose(0, 2, 1, 3) if system == "shallow_water" else bump).astype("f4")
            group["grid/x"] = group["grid/y"] = ((np.arange(size) + 0.5) / size).astype("f4")
            group["grid/t"] = (np.arange(num_frames) / 8).astype("f4")
    return path


@pytest.fixture(scope="session")
def shallow_water(tmp_path_factory):
    return open_dataset(write_waves(tmp_path_factory.mktemp("swe"), "shallow_water"))


@pytest.fixture(scope="session")
def diffusion_reaction(tmp_path_factory):
    return open_dataset(write_waves(tmp_path_factory.mktemp("dr"), "diffusion_reaction"))


@pytest.fixture(scope="session")
def held_out(shallow_water, diffusion_reaction):
    return HeldOut((shallow_water, diffusion_reaction), ((0, 2), (1,)), num_frames=2)


@pytest.fixture(scope="session")
def model():
    """Return a model whose predictions differ from persistence."""
    return make_model(PATCHES, torch.float32)


@pytest.fixture(scope="session")
def evaluation(model, held_out):
    protocol = Protocol(leads=(1, 3), rollout_steps=4, max_windows=5, batch_size=4, rollout_lead=3)
    return evaluate(model, held_out, protocol, plan_tasks(model, held_out, protocol))
