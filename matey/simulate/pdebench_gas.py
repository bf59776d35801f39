"""PDEBench's files of compressible flow, with one array per field, and the ensembles of gas that go into them.

Layout and names are those of the released ``2D_CFD_{Rand,Turb}_M*_Eta*_Zeta*_periodic_*_Train.hdf5``. Beyond those, the
root attribute ``config`` records how the file was made.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import h5py
import numpy as np
import torch
import yaml
from torch import Tensor

from matey.simulate import compressible, compressible_initial
from matey.simulate.ensemble import Ensemble, Trajectory
from matey.simulate.hdf5_layout import Hdf5Layout

FIELDS = ("density", "pressure", "Vx", "Vy")  # in the order of the solver


def gas_layout(initial: str) -> Hdf5Layout:
    """Return the layout of the file of an initial condition, ``Rand`` or ``Turb``."""
    return Hdf5Layout(
        files=lambda ensemble: {_file_name(initial, ensemble): ensemble.seeds},
        configs=partial(_configs, initial),
        begin=partial(_begin, initial),
    )


def solve_gas(draw: Callable[[int, int, float], Tensor], ensemble: Ensemble, seeds: Sequence[int]) -> list[Trajectory]:
    """Return the fields, each ``(t, x, y)``, of each seed; ``draw`` returns the initial state of a seed."""
    viscosity, mach = ensemble.settings["viscosity"], ensemble.settings["mach"]
    initial = torch.stack([draw(seed, ensemble.resolution, mach) for seed in seeds])  # (b, f, x, y)
    times = torch.arange(ensemble.num_frames, dtype=torch.float64) * compressible.FRAME_INTERVAL
    frames = compressible.navier_stokes(initial, times, compressible.Gas(viscosity, viscosity))
    return [dict(zip(FIELDS, one.float().movedim(1, 0).numpy(), strict=True)) for one in frames]


solve_rand = partial(solve_gas, compressible_initial.rand)
solve_turbulence = partial(solve_gas, compressible_initial.turbulence)


def _file_name(initial: str, ensemble: Ensemble) -> str:
    mach, viscosity = ensemble.settings["mach"], ensemble.settings["viscosity"]
    # The release writes 0.1 and 1.0 but 1e-08, which is how Python writes floats.
    physics = f"M{float(mach)}_Eta{float(viscosity)}_Zeta{float(viscosity)}"
    return f"2D_CFD_{initial}_{physics}_periodic_{ensemble.resolution}_Train.hdf5"


def _configs(initial: str, ensemble: Ensemble, seeds: Sequence[int]) -> dict[str, str]:
    config = {
        "generator": compressible.__name__,
        "initial": initial,
        "first_seed": seeds[0],
        "num_trajectories": len(seeds),
        "resolution": ensemble.resolution,
        "num_frames": ensemble.num_frames,
        **ensemble.settings,
    }
    return {"config": yaml.safe_dump(config, sort_keys=False)}


def _begin(initial: str, file: h5py.File, ensemble: Ensemble, seeds: Sequence[int]) -> None:
    file.attrs["M"] = np.float64(ensemble.settings["mach"])
    file.attrs["eta"] = file.attrs["zeta"] = np.float64(ensemble.settings["viscosity"])
    file.attrs.update(_configs(initial, ensemble, seeds))
    shape = (len(seeds), ensemble.num_frames, ensemble.resolution, ensemble.resolution)  # (b, t, x, y)
    for field in FIELDS:
        file.create_dataset(field, shape, dtype="f4")
    centres = (np.arange(ensemble.resolution) + 0.5) / ensemble.resolution
    file.create_dataset("x-coordinate", data=centres, dtype="f4")
    file.create_dataset("y-coordinate", data=centres, dtype="f4")
    # The official files hold one time more than frames.
    times = np.arange(ensemble.num_frames + 1) * compressible.FRAME_INTERVAL
    file.create_dataset("t-coordinate", data=times, dtype="f4")
