"""Simulates the plate that hot_plate.py reads: heat spreads from random spots in an insulated square of side 1."""

import json

import numpy as np
from scipy.fft import dctn, idctn

from matey.simulate.ensemble import System
from matey.simulate.layouts import SingleFiles

TIME_STEP = 0.01


def solve(ensemble, seeds):
    """Decay each cosine mode by exp(-D k^2 t), which is the exact solution."""
    waves = np.pi * np.arange(ensemble.resolution)
    decay = ensemble.settings["diffusivity"] * (waves[:, None] ** 2 + waves**2)
    times = TIME_STEP * np.arange(ensemble.num_frames)[:, None, None]
    plates = []
    for seed in seeds:
        modes = dctn(np.random.default_rng(seed).uniform(300, 400, 2 * (ensemble.resolution,)))
        plates.append({"temperature": idctn(modes * np.exp(-decay * times), axes=(1, 2)).astype("f4")})
    return plates


def config(ensemble, seed):
    return json.dumps([ensemble.resolution, ensemble.num_frames, seed, ensemble.settings])


def read_config(path):
    with np.load(path) as file:
        return str(file["config"]) if "config" in file else None


def write(path, ensemble, seed, trajectory):
    """Write to a path of its own, from where the file is moved to its place when it is whole."""
    facts = {"cell": 1 / ensemble.resolution, "time_step": TIME_STEP, "config": config(ensemble, seed)}
    np.savez(path, **trajectory, **facts)


SYSTEM = System(
    summary="Heat spreads in an insulated plate.",
    num_trajectories=16,
    resolution=64,
    num_frames=21,
    num_values=1,
    settings={"diffusivity": 0.01},
    solve=solve,
    layout=SingleFiles(lambda seed: f"plate_{seed:04d}.npz", config, read_config, write),
)
