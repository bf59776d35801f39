"""Colliding thermals on disk as ORNL's miniWeather writes them: a classic netCDF file for each trajectory.

Axes, names and types are those of miniWeather's ``output()``. MATEY's fine-tuning set has two more variables, the
background ``hy_dens`` and ``hy_theta`` along z, without which departures cannot become full fields; these files have them too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from scipy.io import netcdf_file

from matey.simulate import thermals
from matey.simulate.ensemble import Ensemble, Trajectory
from matey.simulate.single_files import SingleFiles
from matey.simulate.stratified_flow import HEIGHT, THETA, WIDTH, Slice, background_density

VARIABLES = ("dens", "uwnd", "wwnd", "theta")  # in the order of the solver's fields


def solve_thermals(ensemble: Ensemble, seeds: Sequence[int]) -> list[Trajectory]:
    """Return the fields, each ``(t, z, x)``, of each seed."""
    frames = thermals.solve(seeds, ensemble.resolution, ensemble.num_frames).numpy()  # (b, t, f, z, x)
    return [dict(zip(VARIABLES, one.swapaxes(0, 1), strict=True)) for one in frames]


def trajectory_path(folder: Path, seed: int) -> Path:
    """Return the file that holds the trajectory of a seed."""
    return folder / f"thermals_{seed:04d}.nc"


def write_trajectory(path: Path, seed: int, frames: np.ndarray, interval: float = thermals.FRAME_INTERVAL) -> None:
    """Write one trajectory of ``thermals.solve``.

    Args:
        path: the file.
        seed: seed of the trajectory in the ensemble.
        frames: ``(t, f, z, x)``, the frames as solved.
        interval: time between frames (s).
    """
    num_frames, _, num_z, num_x = frames.shape
    with netcdf_file(path, "w", version=1) as file:
        file.config = config(seed, num_x, num_frames, interval)
        for axis, length in (("t", None), ("x", num_x), ("z", num_z)):  # None: time may be appended to
            file.createDimension(axis, length)
        file.createVariable("t", "d", ("t",))[:] = np.arange(num_frames) * interval
        for index, name in enumerate(VARIABLES):
            file.createVariable(name, "d", ("t", "z", "x"))[:] = np.asarray(frames[:, index])
        density = background_density(Slice(num_z, num_x).z_centres())
        for name, background in (("hy_dens", density), ("hy_theta", torch.full_like(density, THETA))):
            file.createVariable(name, "d", ("z",))[:] = background.numpy()


def config(seed: int, resolution: int, num_frames: int, interval: float = thermals.FRAME_INTERVAL) -> str:
    """Return the YAML text that records the contents of a file; equal settings give equal text."""
    warm, cold = (asdict(bubble) for bubble in thermals.draw_bubbles(seed))
    sim: dict[str, Any] = {"seed": seed, "nx": resolution, "nz": resolution // 2}
    sim |= {"num_frames": num_frames, "out_freq": interval}
    sim |= {"xlen": WIDTH, "zlen": HEIGHT, "warm_bubble": warm, "cold_bubble": cold}
    return yaml.safe_dump({"name": "thermals", "generator": thermals.__name__, "sim": sim}, sort_keys=False)


def read_config(path: Path) -> str | None:
    """Return the result of ``config`` as kept in a file, or None if another program wrote it."""
    try:
        with netcdf_file(path, mmap=False) as file:
            return getattr(file, "config", b"").decode() or None
    except (TypeError, ValueError, IndexError):  # scipy's errors about a file that is not netCDF, or truncated
        return None


LAYOUT = SingleFiles(
    path=trajectory_path,
    config=lambda ensemble, seed: config(seed, ensemble.resolution, ensemble.num_frames),
    read_config=read_config,
    write_one=lambda path, ensemble, seed, trajectory: write_trajectory(
        path, seed, np.stack([trajectory[name] for name in VARIABLES], axis=1)
    ),
)
