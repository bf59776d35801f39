"""MHD cavities on disk: a self-describing HDF5 file of our own, and the bare array that MATEY's authors used.

Both hold the same frames of ``mhd_cavity.solve``, one trajectory to a file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import h5py
import numpy as np
import yaml

from matey.simulate import mhd_cavity
from matey.simulate.ensemble import Ensemble, Trajectory
from matey.simulate.single_files import SingleFiles

SYSTEM = "mhd_cavity"


def solve_cavities(ensemble: Ensemble, seeds: Sequence[int]) -> list[Trajectory]:
    """Return velocity and magnetic field, each ``(t, y, x, 2)``, of each seed."""
    frames = mhd_cavity.solve(seeds, ensemble.resolution, ensemble.num_frames, ensemble.settings["interval"])
    return [{"velocity": one[..., :2], "magnetic": one[..., 2:]} for one in frames.numpy()]


def trajectory_path(folder: Path, seed: int) -> Path:
    """Return the HDF5 file that holds the trajectory of a seed."""
    return folder / f"{SYSTEM}_{seed:04d}.h5"


def write_trajectory(path: Path, seed: int, frames: np.ndarray, interval: float = mhd_cavity.FRAME_INTERVAL) -> None:
    """Write one trajectory as HDF5.

    The root's attributes ``system``, ``Bx``, ``Re`` and ``Re_m`` describe the cavity; ``velocity`` and ``magnetic`` are
    ``(t, y, x, 2)``, the component along x first, and ``x``, ``y`` and ``t`` are the coordinates and times.

    Args:
        path: the file.
        seed: seed of the cavity.
        frames: ``(t, y, x, f)``, the frames as solved.
        interval: time between frames.
    """
    num_frames, resolution = frames.shape[:2]
    cavity = mhd_cavity.draw_cavity(seed)
    place = np.linspace(-mhd_cavity.HALF_WIDTH, mhd_cavity.HALF_WIDTH, resolution)
    with h5py.File(path, "w") as file:
        file.attrs["system"], file.attrs["config"] = SYSTEM, config(seed, resolution, num_frames, interval)
        file.attrs.update({"Bx": cavity.field, "Re": cavity.reynolds, "Re_m": cavity.magnetic_reynolds})
        for name, values in (("velocity", frames[..., :2]), ("magnetic", frames[..., 2:])):
            file.create_dataset(name, data=values, dtype="f4")
        for name, values in (("x", place), ("y", place), ("t", np.arange(num_frames) * interval)):
            file.create_dataset(name, data=values, dtype="f4")


def config(seed: int, resolution: int, num_frames: int, interval: float = mhd_cavity.FRAME_INTERVAL) -> str:
    """Return the YAML text that records the contents of a file; equal settings give equal text."""
    sim = {"seed": seed, "resolution": resolution, "num_frames": num_frames, "interval": interval}
    sim |= asdict(mhd_cavity.draw_cavity(seed))
    return yaml.safe_dump({"name": SYSTEM, "generator": mhd_cavity.__name__, "sim": sim}, sort_keys=False)


def read_config(path: Path) -> str | None:
    """Return the result of ``config`` as kept in an HDF5 file, or None if another program wrote it."""
    try:
        with h5py.File(path) as file:
            return file.attrs.get("config")
    except OSError:  # not HDF5, or truncated
        return None


def array_path(folder: Path, seed: int) -> Path:
    """Return the ``npy`` file of a seed's cavity; MATEY's reader expects 4 characters for Bx and 3 for Re_m."""
    cavity = mhd_cavity.draw_cavity(seed)
    return folder / f"numpy_Bx_{cavity.field:.2f}_Re_{cavity.magnetic_reynolds:03.0f}.npy"


def write_array(path: Path, frames: np.ndarray) -> None:
    """Write one trajectory as the bare array ``(t, y, x, 4)``.

    MATEY's first reader looked for ``*_sol.exo`` files beside it, to count time steps; none are written.
    """
    np.save(path, np.asarray(frames, dtype="f4"))


LAYOUT = SingleFiles(
    path=trajectory_path,
    config=lambda ensemble, seed: config(seed, ensemble.resolution, ensemble.num_frames, ensemble.settings["interval"]),
    read_config=read_config,
    write_one=lambda path, ensemble, seed, trajectory: write_trajectory(
        path, seed, np.concatenate(list(trajectory.values()), axis=-1), ensemble.settings["interval"]
    ),
)


def _array_config(ensemble: Ensemble, seed: int) -> str:
    """Return the shape, which is all that an array records; its name states field and Reynolds number.

    Raises:
        ValueError: the interval between frames is not the one that readers assume.
    """
    if ensemble.settings["interval"] != mhd_cavity.FRAME_INTERVAL:
        interval = ensemble.settings["interval"]
        raise ValueError(
            f"An array does not say its interval, which is taken to be {mhd_cavity.FRAME_INTERVAL:g}: got {interval:g}; "
            "write HDF5 instead."
        )
    return str((ensemble.num_frames, ensemble.resolution, ensemble.resolution, 4))


def _array_shape(path: Path) -> str | None:
    try:
        return str(np.load(path, mmap_mode="r", allow_pickle=False).shape)
    except (OSError, ValueError, EOFError):  # NumPy's errors about a file that is no array, or truncated
        return None


ARRAYS = SingleFiles(
    path=array_path,
    config=_array_config,
    read_config=_array_shape,
    write_one=lambda path, ensemble, seed, trajectory: write_array(
        path, np.concatenate(list(trajectory.values()), axis=-1)
    ),
)
