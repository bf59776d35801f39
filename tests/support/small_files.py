"""Small files in PDEBench's layout of a group per seed, with values in which something moves."""

import copy
import shutil
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import h5py
import numpy as np

NAMES = {"shallow_water": "2D_rdb_NA_NA.h5", "diffusion_reaction": "2D_diff-react_NA_NA.h5"}
SIMULATION = {
    "shallow_water": "dam_radius: 0.5\n  gravity: 1.0",
    "diffusion_reaction": "Du: 0.001\n  Dv: 0.005\n  k: 0.005",
}


def write_groups(path, system, trajectories, x, y, interval, config=True, compression=None):
    """Write trajectories as the layout has them, (t, x, y, f) for shallow water, (t, y, x, f) for diffusion-reaction."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for seed, data in enumerate(trajectories):
            group = file.create_group(f"{seed:04d}")
            if config:
                group.attrs["config"] = f"sim:\n  seed: {seed}\n  {SIMULATION[system]}\n"
            group.create_dataset("data", data=data.astype("f4"), compression=compression)
            for axis, values in (("x", x), ("y", y), ("t", np.arange(len(data)) * interval)):
                group[f"grid/{axis}"] = values.astype("f4")
    return path


def write_waves(folder, system, num_trajectories=3, num_frames=12, size=16):
    """Write a bump that travels along x, each trajectory at its own speed; the second field is later than the first."""
    t, y, x, field = np.ogrid[:num_frames, :size, :size, : 1 if system == "shallow_water" else 2]
    centres = (size / 4 + 0.3 * (seed + 1) * (t - field) for seed in range(num_trajectories))
    bumps = (1 + np.exp(-((x - centre) ** 2 + (y - size / 2) ** 2) / 4) for centre in centres)
    order = (0, 2, 1, 3) if system == "shallow_water" else (0, 1, 2, 3)
    places = (np.arange(size) + 0.5) / size
    return write_groups(
        folder / NAMES[system], system, (bump.transpose(order) for bump in bumps), places, places, 1 / 8
    )


def write_swe(path: Path, num_trajectories: int, num_frames: int = 12, resolution: int = 16, seed: int = 0) -> Path:
    """Write shallow water whose bumps drift from places drawn by chance."""
    random = np.random.default_rng(seed)
    axis = np.linspace(-2.5, 2.5, resolution + 1)[:-1] + 2.5 / resolution
    time = np.arange(num_frames)[:, None, None] * 0.01
    starts = random.uniform(-1, 1, (num_trajectories, 2))
    heights = (
        1 + np.exp(-((axis[:, None] - x0 - 20 * time) ** 2) - 2 * (axis[None, :] - y0) ** 2) for x0, y0 in starts
    )
    return write_groups(path, "shallow_water", (height[..., None] for height in heights), axis, axis, 0.01)


def written_once(write):
    """Wrap a writer of a folder, which takes long: what it writes of a name and further arguments is copied after that."""

    @cache
    def written(name, *args):
        folder = TemporaryDirectory()
        return folder, write(Path(folder.name) / name, *args)

    def put(path, *args):
        folder, description = written(path.name, *args)
        shutil.copytree(Path(folder.name) / path.name, path, dirs_exist_ok=True)
        return copy.deepcopy(description)

    return put
