"""PDEBench's files with one group per trajectory: the radial dam break and diffusion-reaction.

Layout, names and settings are those of the generators ``pdebench/data_gen/gen_radial_dam_break.py`` and
``gen_diff_react.py``. PDEBench's own readers take the grid from group 0023, so they need at least 24 trajectories; MATEY
does not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np
import torch
import yaml

from matey.simulate import reaction_diffusion, shallow_water
from matey.simulate.ensemble import Ensemble, Trajectory
from matey.simulate.hdf5_layout import Hdf5Layout


@dataclass(frozen=True)
class _Square:
    """Contents of either file, whose trajectories lie on ``[-half_width, half_width]^2``.

    Unlike the official diffusion-reaction file, nothing is compressed: lzf makes these digits no smaller (0.4 % larger
    at 64 x 64), takes as long as the solver, and with the official chunks a reader of one frame has to unpack 26.
    """

    half_width: float
    frame_interval: float
    config: Callable[[int, int, int], dict[str, Any]]  # from (seed, resolution, number of frames)

    def layout(self, file_name: str) -> Hdf5Layout:
        """Return the layout of one file of that name."""
        return Hdf5Layout(
            files=lambda ensemble: {file_name: ensemble.seeds},
            configs=self.configs,
            read_configs=lambda file: {name: str(item.attrs.get("config")) for name, item in file.items()},
            begin=self.begin,
            add=lambda file, position, trajectory: file[group(position)]["data"].write_direct(trajectory["data"]),
        )

    def configs(self, ensemble: Ensemble, seeds: Sequence[int]) -> dict[str, str]:
        """Return the YAML text that records each trajectory, by name of its group."""
        sides = {"x_left": -1, "x_right": 1, "y_bottom": -1, "y_top": 1}
        square = {name: side * self.half_width for name, side in sides.items()}
        configs = {}
        for position, seed in enumerate(seeds):
            config = self.config(seed, ensemble.resolution, ensemble.num_frames)
            config["sim"] |= square | {"seed": seed}
            configs[group(position)] = yaml.safe_dump(config, sort_keys=False)
        return configs

    def begin(self, file: h5py.File, ensemble: Ensemble, seeds: Sequence[int]) -> None:
        """Make the groups, with room for the data."""
        spacing = 2 * self.half_width / ensemble.resolution
        centres = (np.arange(ensemble.resolution) + 0.5) * spacing - self.half_width
        times = np.linspace(0, (ensemble.num_frames - 1) * self.frame_interval, ensemble.num_frames)
        shape = (ensemble.num_frames, ensemble.resolution, ensemble.resolution, ensemble.system.num_values)
        for name, config in self.configs(ensemble, seeds).items():
            file.create_group(name).attrs["config"] = config
            file[name].create_dataset("data", shape, dtype="f4")
            for axis, values in (("x", centres), ("y", centres), ("t", times)):
                file[name].create_dataset(f"grid/{axis}", data=values, dtype="f4")


def group(position: int) -> str:
    """Return the name of the group of a trajectory."""
    return f"{position:04d}"


def solve_dam_break(ensemble: Ensemble, seeds: Sequence[int]) -> list[Trajectory]:
    """Return depth as stored, ``(t, x, y, f)``, of each seed."""
    radius = torch.tensor([shallow_water.dam_radius(seed) for seed in seeds], dtype=torch.float64)
    depth = shallow_water.dam_break(radius, ensemble.resolution, ensemble.num_frames).float()  # (b, t, x, y)
    return [{"data": one.unsqueeze(-1).numpy()} for one in depth]


def solve_diffusion_reaction(ensemble: Ensemble, seeds: Sequence[int]) -> list[Trajectory]:
    """Return activator and inhibitor as stored, ``(t, y, x, f)``, of each seed."""
    initial = torch.stack([reaction_diffusion.white_noise(seed, ensemble.resolution) for seed in seeds])
    times = torch.arange(ensemble.num_frames, dtype=torch.float64) * reaction_diffusion.FRAME_INTERVAL
    fields = reaction_diffusion.fitzhugh_nagumo(initial, times).float()  # (b, t, f, y, x)
    return [{"data": one.movedim(1, -1).contiguous().numpy()} for one in fields]


def _dam_break_config(seed: int, resolution: int, num_frames: int) -> dict[str, Any]:
    sim = {
        "T_end": round((num_frames - 1) * shallow_water.FRAME_INTERVAL, 9),
        "n_time_steps": num_frames - 1,
        "xdim": resolution,
        "ydim": resolution,
        "gravity": shallow_water.GRAVITY,
        "dam_radius": shallow_water.dam_radius(seed),
        "inner_height": shallow_water.DEPTH_INSIDE,
    }
    return {"name": "2d_rdb", "generator": shallow_water.__name__, "sim": sim}


def _diffusion_reaction_config(seed: int, resolution: int, num_frames: int) -> dict[str, Any]:
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
    return {"name": "2d_diff-react", "generator": reaction_diffusion.__name__, "sim": sim}


DAM_BREAK = _Square(shallow_water.HALF_WIDTH, shallow_water.FRAME_INTERVAL, _dam_break_config).layout("2D_rdb_NA_NA.h5")
DIFFUSION_REACTION = _Square(
    reaction_diffusion.HALF_WIDTH, reaction_diffusion.FRAME_INTERVAL, _diffusion_reaction_config
).layout("2D_diff-react_NA_NA.h5")
