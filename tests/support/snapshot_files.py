"""Writers of data in a file, or an array, for each snapshot, each with the description that goes with it."""

import h5py
import numpy as np
import xarray

from tests.support.layout_files import NUM_X, NUM_Y, coded
from tests.support.small_files import written_once

NUM_SNAPSHOTS = 12  # so that step 9 comes before step 10, which it does not by the alphabet
VALUES = coded(2, 2, NUM_SNAPSHOTS)  # (trajectory, t, f, y, x)
TIMES = np.arange(NUM_SNAPSHOTS) / 4
COMMON = {
    "system": "advection",
    "axes": ["y", "x"],
    "fields": {"height": "h", "tracer": "q"},
    "spacing": {"y": 0.25, "x": 0.125},
    "boundary": {"y": "wall", "x": "periodic"},
}


@written_once
def write_hdf5(folder):
    """A folder for each trajectory, times and parameters as attributes; steps without leading zeros."""
    for run, of_run in enumerate(VALUES):
        (folder / f"run_{run}").mkdir(parents=True)
        for step, values in enumerate(of_run):
            with h5py.File(folder / f"run_{run}" / f"plt_{10 * step}.h5", "w") as file:
                file["h"], file["q"] = values
                file.attrs["time"], file.attrs["nu"] = TIMES[step], 0.5 + run
    about = {"time_step": {"attribute": "time"}, "parameters": {"nu": {"attribute": "nu"}}}
    return COMMON | {"files": "run_*/plt_*.h5"} | about


def write_npy(folder):
    """All trajectories in a folder, told apart by the first number in the names; nothing but values."""
    folder.mkdir(parents=True, exist_ok=True)
    for run, of_run in enumerate(VALUES):
        for step, values in enumerate(of_run):
            np.save(folder / f"sim{run}_u_{step:04d}.npy", values)
    fields = {"height": {"index": 0}, "tracer": {"index": 1}}
    return COMMON | {"files": "sim*_u_*.npy", "axes": ["component", "y", "x"], "fields": fields, "time_step": 0.25}


def _along(run, steps):
    axes = ("time", "y", "x")[0 if isinstance(steps, slice) else 1 :]
    values = {name: (axes, VALUES[run, steps, field]) for field, name in enumerate("hq")}
    places = {"time": TIMES[steps], "y": np.arange(NUM_Y) / 4, "x": np.arange(NUM_X) / 8}
    return xarray.Dataset(values, places)


@written_once
def write_netcdf(folder, at_once=1):
    """An axis of time in each file, as xarray and most climate models have it."""
    for run in range(len(VALUES)):
        (folder / f"run_{run}").mkdir(parents=True)
        for first in range(0, NUM_SNAPSHOTS, at_once):
            file = folder / f"run_{run}" / f"out{first}.nc"
            _along(run, slice(first, first + at_once)).to_netcdf(file, engine="netcdf4")
    about = {"axes": ["time", "y", "x"], "concat": "time", "time_step": "time", "spacing": {"y": "y", "x": "x"}}
    return COMMON | {"files": "run_*/out*.nc"} | about


def write_several_at_once(folder):
    """Five snapshots in a file, and two in the last."""
    return write_netcdf(folder, 5)


@written_once
def write_zarr(folder):
    """A store for each snapshot."""
    for run in range(len(VALUES)):
        for step in range(NUM_SNAPSHOTS):
            _along(run, step).to_zarr(folder / f"run_{run}" / f"{step}.zarr", zarr_format=3, consolidated=False)
    return COMMON | {"files": "run_*/*.zarr", "time_step": "time"}


def write_fields_apart(folder):
    """A folder for each trajectory, and in it a file for each field and snapshot, named by the time in quarters."""
    for run, of_run in enumerate(VALUES):
        (folder / f"run_{run}").mkdir(parents=True)
        for step, fields in enumerate(of_run):
            for name, values in zip("hq", fields, strict=True):
                np.save(folder / f"run_{run}" / f"{name}_{step}.npy", values)
    fields = {"height": None, "tracer": {"file": "run_*/q_*.npy"}}
    return COMMON | {"files": "run_*/h_*.npy", "fields": fields, "time_step": {"number_in_name": 0.25}}


@written_once
def write_folders_of_times(folder):
    """A folder for each time, as OpenFOAM has it, with a file for each field."""
    for run, of_run in enumerate(VALUES):
        for time, fields in zip(TIMES, of_run, strict=True):
            place = folder / f"run_{run}" / f"{time:g}"
            place.mkdir(parents=True)
            for name, values in zip("hq", fields, strict=True):
                with h5py.File(place / f"{name}.h5", "w") as file:
                    file["values"] = values
    fields = {"height": "values", "tracer": {"array": "values", "file": "run_*/*/q.h5"}}
    return COMMON | {"files": "run_*/*/h.h5", "fields": fields, "time_step": {"number_in_name": 1.0}}


LAYOUTS = {
    "HDF5": write_hdf5,
    "NumPy": write_npy,
    "netCDF": write_netcdf,
    "netCDF, several at once": write_several_at_once,
    "Zarr": write_zarr,
    "a file for each field": write_fields_apart,
    "a folder for each time": write_folders_of_times,
}
