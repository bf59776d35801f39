"""Small files in PDEBench's layout in which something moves."""

from pathlib import Path

import h5py
import numpy as np

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


def write_swe(path: Path, num_trajectories: int, num_frames: int = 12, resolution: int = 16, seed: int = 0) -> Path:
    """A file in PDEBench's shallow-water layout whose bumps drift."""
    random = np.random.default_rng(seed)
    axis = np.linspace(-2.5, 2.5, resolution + 1)[:-1] + 2.5 / resolution
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for number in range(num_trajectories):
            x0, y0 = random.uniform(-1, 1, 2)
            time = np.arange(num_frames)[:, None, None] * 0.01
            height = 1 + np.exp(-((axis[:, None] - x0 - 20 * time) ** 2) - 2 * (axis[None, :] - y0) ** 2)
            group = file.create_group(f"{number:04d}")
            group["data"] = height[..., None].astype("f4")
            group["grid/x"], group["grid/y"] = axis.astype("f4"), axis.astype("f4")
            group["grid/t"] = (np.arange(num_frames) * 0.01).astype("f4")
            group.attrs["config"] = f"sim:\n  dam_radius: 0.5\n  gravity: 1.0\n  seed: {number}\n"
    return path
