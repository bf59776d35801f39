"""PDEBench's files of incompressible flow, four trajectories in each, and the ensembles of flows that go into them.

Layout and names are those of ``pdebench/data_gen/src/data_io.py``, and fields those of ``sim_ns_incomp_2d.py``. Three
things differ: a file is named by the seed of its first trajectory, since each trajectory has its own seed; frame 0 is
divergence-free already; and data are not compressed, since lzf makes noise no smaller.
"""

from __future__ import annotations

from collections.abc import Sequence

import h5py
import numpy as np
import torch
import yaml

from matey.simulate import incompressible, incompressible_initial
from matey.simulate.ensemble import Ensemble, Trajectory
from matey.simulate.hdf5_layout import Hdf5Layout

FRAME_INTERVAL = 0.005
TRAJECTORIES_PER_FILE = 4


def solve_box(ensemble: Ensemble, seeds: Sequence[int]) -> list[Trajectory]:
    """Return velocity ``(t, x, y, 2)``, tracer ``(t, x, y, 1)`` and force ``(x, y, 2)`` in the cells, of each seed."""
    flows, forces = zip(
        *(incompressible_initial.noise_in_box(seed, ensemble.resolution) for seed in seeds), strict=True
    )
    initial = incompressible.Flow(
        torch.stack([flow.velocity for flow in flows]), torch.stack([flow.tracer for flow in flows])
    )
    force = torch.stack(forces)  # (b, 2, x, y)
    times = torch.arange(ensemble.num_frames, dtype=torch.float64) * FRAME_INTERVAL
    flow = incompressible.flow_in_box(initial, force, times, ensemble.settings["viscosity"])
    stored = {
        "velocity": flow.velocity_in_cells().movedim(2, -1),
        "particles": flow.tracer.unsqueeze(-1),
        "force": incompressible.Flow(force, flow.tracer).velocity_in_cells().movedim(1, -1),
    }
    return [{name: field[one].float().numpy() for name, field in stored.items()} for one in range(len(seeds))]


def _files(ensemble: Ensemble) -> dict[str, Sequence[int]]:
    starts = ensemble.seeds[::TRAJECTORIES_PER_FILE]
    return {
        f"{_name(ensemble)}-{start}.h5": range(start, min(start + TRAJECTORIES_PER_FILE, ensemble.seeds.stop))
        for start in starts
    }


def _name(ensemble: Ensemble) -> str:
    return f"ns_incom_inhom_2d_{ensemble.resolution}"


def _configs(ensemble: Ensemble, seeds: Sequence[int]) -> dict[str, str]:
    config = {
        "sim_name": _name(ensemble),
        "generator": incompressible.__name__,
        "domain_size": [1, 1],
        "grid_size": [ensemble.resolution, ensemble.resolution],
        "particle_extrapolation": "BOUNDARY",
        "velocity_extrapolation": "ZERO",
        "NU": ensemble.settings["viscosity"],
        "force_extrapolation": "ZERO",
        "seed": seeds[0],
        "smoothness": incompressible_initial.SMOOTHNESS,
        "scale": incompressible_initial.SCALE,
        "force_smoothness": incompressible_initial.FORCE_SMOOTHNESS,
        "force_scale": incompressible_initial.FORCE_SCALE,
        "n_steps": ensemble.num_frames,
        "DT": FRAME_INTERVAL,
        "frame_int": 1,
        "n_batch": len(seeds),
    }
    return {"config": yaml.safe_dump(config, sort_keys=False)}


def _begin(file: h5py.File, ensemble: Ensemble, seeds: Sequence[int]) -> None:
    file.attrs.update(_configs(ensemble, seeds))
    file.attrs["latestIndex"] = np.int64(ensemble.num_frames - 1)
    cells = (ensemble.resolution, ensemble.resolution)
    per_frame = (len(seeds), ensemble.num_frames)
    file.create_dataset("velocity", (*per_frame, *cells, 2), dtype="f4", chunks=(1, 1, *cells, 2))
    file.create_dataset("particles", (*per_frame, *cells, 1), dtype="f4", chunks=(1, 1, *cells, 1))
    file.create_dataset("force", (len(seeds), *cells, 2), dtype="f4")
    times = np.arange(ensemble.num_frames) * FRAME_INTERVAL
    file.create_dataset("t", data=np.tile(times, (len(seeds), 1)), dtype="f4")


LAYOUT = Hdf5Layout(_files, _configs, _begin)
