"""Writers of small files in the official layouts, with values that tell where they were written."""

import h5py
import numpy as np

from tests.support.small_files import SIMULATION

NUM_X, NUM_Y = 12, 8
NUM_CHANNELS = {"shallow_water": 1, "diffusion_reaction": 2}


def coded_value(seed, t, channel, y, x):
    """What the files below hold; exact in float32, and no two cells of a file are equal."""
    return ((seed * 50 + t) * NUM_Y + y) * NUM_X + x + channel * 0.5


def coded_frames(system, seed, num_frames, num_x=NUM_X, num_y=NUM_Y):
    """One trajectory as it lies on disk: (t, x, y, f) for shallow water, (t, y, x, f) for diffusion-reaction."""
    t, channel, y, x = np.ogrid[:num_frames, : NUM_CHANNELS[system], :num_y, :num_x]
    values = coded_value(seed, t, channel, y, x).astype(np.float32)
    return values.transpose((0, 3, 2, 1) if system == "shallow_water" else (0, 2, 3, 1))


def write_seed_groups(path, system, num_frames=(11, 11, 11), config=True, **overrides):
    """Write a PDEBench file with one group per entry of ``num_frames``; overrides replace ``NNNN`` data by name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    compression = "lzf" if system == "diffusion_reaction" else None
    with h5py.File(path, "w") as file:
        for seed, frames in enumerate(num_frames):
            group = file.create_group(str(seed).zfill(4))
            if config:
                group.attrs["config"] = f"name: made by a test\nsim:\n  seed: {seed}\n  {SIMULATION[system]}\n"
            data = overrides.get(f"data_{group.name[1:]}", coded_frames(system, seed, frames))
            group.create_dataset("data", data=data, compression=compression)
            group["grid/x"] = np.linspace(0.25, 0.25 + 0.5 * (NUM_X - 1), NUM_X, dtype=np.float32)
            group["grid/y"] = np.linspace(0.125, 0.125 + 0.25 * (NUM_Y - 1), NUM_Y, dtype=np.float32)
            group["grid/t"] = np.arange(frames, dtype=np.float32) / 64
    return path
