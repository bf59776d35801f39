"""Ensembles of simulated trajectories in the layout of PDEBench's files with one group per trajectory.

Solvers know nothing of files, and this file nothing of numerics. Layout, names and settings are those of the generators
``pdebench/data_gen/gen_radial_dam_break.py`` and ``gen_diff_react.py``.
"""

from __future__ import annotations

import os
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import torch
import yaml
from torch import Tensor

from matey.simulate import reaction_diffusion, shallow_water


@dataclass(frozen=True)
class PdebenchSystem:
    """A system of PDEBench on a square, whose trajectories differ by a seed.

    Attributes:
        file_name: the official one, by which readers know the system.
        summary: one line for people.
        half_width: the domain is ``[-half_width, half_width]^2``.
        frame_interval: time between frames.
        num_fields: values per cell.
        config: from (seed, resolution, number of frames), what the official file records of a trajectory.
        solve: from (seeds, resolution, number of frames), the trajectories as stored, ``(b, t, axis, axis, f)``.
    """

    file_name: str
    summary: str
    half_width: float
    frame_interval: float
    num_fields: int
    config: Callable[[int, int, int], dict]
    solve: Callable[[Sequence[int], int, int], Tensor]


@dataclass(frozen=True)
class Ensemble:
    """Trajectories of one system that go into one file; sizes are the official ones unless given.

    Trajectory ``i`` has the seed ``first_seed + i`` and the group named by ``i``. PDEBench's own readers take the grid
    from group 0023, so they need at least 24 trajectories; MATEY does not.
    """

    system: PdebenchSystem
    num_trajectories: int = 1000
    resolution: int = 128
    num_frames: int = 101
    first_seed: int = 0

    def __post_init__(self) -> None:
        """Raise ValueError for sizes that make no data."""
        for what, value, least in (
            ("number of trajectories", self.num_trajectories, 1),
            ("resolution", self.resolution, 8),
            ("number of frames", self.num_frames, 2),
            ("first seed", self.first_seed, 0),
        ):
            if value < least:
                raise ValueError(f"The {what} must be at least {least}, got {value}.")

    @property
    def seeds(self) -> range:
        """The seed of each trajectory."""
        return range(self.first_seed, self.first_seed + self.num_trajectories)

    @property
    def num_bytes(self) -> int:
        """Size of the data on disk."""
        return 4 * self.num_trajectories * self.num_frames * self.resolution**2 * self.system.num_fields

    def configs(self) -> dict[str, str]:
        """Return the YAML text by which the file records each trajectory, by name of its group."""
        configs = (self.system.config(seed, self.resolution, self.num_frames) for seed in self.seeds)
        return {f"{index:04d}": yaml.safe_dump(config, sort_keys=False) for index, config in enumerate(configs)}


def solve_ensemble(ensemble: Ensemble, num_workers: int = 1, cells_per_batch: int = 2**15) -> Iterator[np.ndarray]:
    """Solve in batches on ``num_workers`` threads, and yield the trajectories in order, as stored, in float32.

    Neither argument changes the data. With 32,768 cells (eight trajectories at 64 x 64), operations are long enough to
    outweigh their overhead, and temporaries still fit the cache. A thread per batch scales better than many threads
    per operation, and does not mind other processes on the same cores.
    """
    fair_share = -(-ensemble.num_trajectories // num_workers)
    batch_size = max(1, min(cells_per_batch // ensemble.resolution**2, fair_share))
    pending = deque()
    with ThreadPoolExecutor(num_workers) as pool:
        for start in range(0, ensemble.num_trajectories, batch_size):
            seeds = ensemble.seeds[start : start + batch_size]
            pending.append(pool.submit(ensemble.system.solve, seeds, ensemble.resolution, ensemble.num_frames))
            if len(pending) > num_workers:  # no further ahead: the official ensemble does not fit in memory
                yield from pending.popleft().result().numpy()
        while pending:
            yield from pending.popleft().result().numpy()


def write_ensemble(path: Path, ensemble: Ensemble, trajectories: Iterable[np.ndarray]) -> None:
    """Write trajectories ``(t, axis, axis, f)`` to a file that appears under its name only when it is whole.

    Unlike the official diffusion-reaction file, nothing is compressed: lzf makes these digits no smaller (0.4 % larger
    at 64 x 64), takes as long as the solver, and with the official chunks a reader of one frame has to unpack 26.
    """
    system = ensemble.system
    spacing = 2 * system.half_width / ensemble.resolution
    centres = (np.arange(ensemble.resolution) + 0.5) * spacing - system.half_width
    times = np.linspace(0, (ensemble.num_frames - 1) * system.frame_interval, ensemble.num_frames)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as scratch:
        partial = Path(scratch) / path.name
        with h5py.File(partial, "w") as file:
            for (name, config), trajectory in zip(ensemble.configs().items(), trajectories, strict=True):
                group = file.create_group(name)
                group.attrs["config"] = config
                group.create_dataset("data", data=trajectory, dtype="f4")
                for axis, values in (("x", centres), ("y", centres), ("t", times)):
                    group.create_dataset(f"grid/{axis}", data=values, dtype="f4")
        os.replace(partial, path)


def read_configs(path: Path) -> dict[str, str]:
    """Return what ``Ensemble.configs`` gave for a file, or another dictionary if something else wrote it."""
    with h5py.File(path) as file:
        return {name: str(item.attrs.get("config")) for name, item in file.items()}


def _dam_break_config(seed: int, resolution: int, num_frames: int) -> dict:
    sim = {
        "T_end": round((num_frames - 1) * shallow_water.FRAME_INTERVAL, 9),
        "n_time_steps": num_frames - 1,
        "xdim": resolution,
        "ydim": resolution,
        "gravity": shallow_water.GRAVITY,
        "dam_radius": shallow_water.dam_radius(seed),
        "inner_height": shallow_water.DEPTH_INSIDE,
    }
    return {"name": "2d_rdb", "generator": shallow_water.__name__, "sim": sim | _square(shallow_water.HALF_WIDTH, seed)}


def _solve_dam_break(seeds: Sequence[int], resolution: int, num_frames: int) -> Tensor:
    radius = torch.tensor([shallow_water.dam_radius(seed) for seed in seeds], dtype=torch.float64)
    return shallow_water.dam_break(radius, resolution, num_frames).float().unsqueeze(-1)  # (b, t, x, y, f)


def _diffusion_reaction_config(seed: int, resolution: int, num_frames: int) -> dict:
    sim = {
        "Du": reaction_diffusion.DIFFUSIVITY_U,
        "Dv": reaction_diffusion.DIFFUSIVITY_V,
        "k": reaction_diffusion.K,
        "t": round((num_frames - 1) * reaction_diffusion.FRAME_INTERVAL, 9),
        "tdim": num_frames,
        "xdim": resolution,
        "ydim": resolution,
        "n": 1,
    }
    sim |= _square(reaction_diffusion.HALF_WIDTH, seed)
    return {"name": "2d_diff-react", "generator": reaction_diffusion.__name__, "sim": sim}


def _solve_diffusion_reaction(seeds: Sequence[int], resolution: int, num_frames: int) -> Tensor:
    initial = torch.stack([reaction_diffusion.white_noise(seed, resolution) for seed in seeds])  # (b, f, y, x)
    times = torch.arange(num_frames, dtype=torch.float64) * reaction_diffusion.FRAME_INTERVAL
    return reaction_diffusion.fitzhugh_nagumo(initial, times).float().movedim(2, -1)  # (b, t, y, x, f)


def _square(half_width: float, seed: int) -> dict:
    sides = {"x_left": -half_width, "x_right": half_width, "y_bottom": -half_width, "y_top": half_width}
    return sides | {"seed": seed}


SYSTEMS = {
    "shallow_water": PdebenchSystem(
        file_name="2D_rdb_NA_NA.h5",
        summary="Radial dam break: water depth, waves from a released column, open sides.",
        half_width=shallow_water.HALF_WIDTH,
        frame_interval=shallow_water.FRAME_INTERVAL,
        num_fields=1,
        config=_dam_break_config,
        solve=_solve_dam_break,
    ),
    "diffusion_reaction": PdebenchSystem(
        file_name="2D_diff-react_NA_NA.h5",
        summary="FitzHugh-Nagumo diffusion-reaction: activator and inhibitor, patterns from noise, closed walls.",
        half_width=reaction_diffusion.HALF_WIDTH,
        frame_interval=reaction_diffusion.FRAME_INTERVAL,
        num_fields=2,
        config=_diffusion_reaction_config,
        solve=_solve_diffusion_reaction,
    ),
}
