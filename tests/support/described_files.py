"""Writers of files that need a description, by libraries that are not ours, each with the description that goes with it."""

import h5py
import numpy as np
import xarray
import yaml

from matey.data import open_dataset
from matey.data.describing import guess_description
from tests.support.layout_files import NUM_FRAMES, NUM_X, NUM_Y, coded
from tests.support.small_files import written_once

ALONG = {
    "spacing": {"y": "lat", "x": "lon"},
    "time_step": "time",
    "boundary": {"y": "wall", "x": "periodic"},
    "parameters": {"nu": {"array": "nu"}, "Re": {"attribute": "Re"}},
}
BY_NAME = {"axes": ["trajectory", "time", "y", "x"], "fields": {"height": "h", "tracer": "q"}, **ALONG}


def dataset():
    """Two trajectories of two fields with coordinates, as xarray holds them."""
    values = coded(2)
    axes = ("sample", "time", "lat", "lon")
    fields = {"h": (axes, values[:, :, 0], {"units": "m"}), "q": (axes, values[:, :, 1])}
    places = {"time": np.arange(NUM_FRAMES) / 2, "lat": np.arange(NUM_Y) / 4, "lon": np.arange(NUM_X) / 8}
    return xarray.Dataset(fields, {**places, "nu": ("sample", np.array([0.5, 0.25]))}, {"Re": 100.0, "note": "a text"})


def write_netcdf4(path):
    dataset().to_netcdf(path, engine="netcdf4", format="NETCDF4")
    return BY_NAME


def write_netcdf3(path):
    dataset().to_netcdf(path, engine="netcdf4", format="NETCDF3_64BIT", unlimited_dims=["sample"])
    return BY_NAME


@written_once
def write_zarr2(path):
    dataset().to_zarr(path, zarr_format=2, encoding={name: {"chunks": (1, 2, NUM_Y, 5)} for name in ("h", "q")})
    return BY_NAME


@written_once
def write_zarr3(path):
    encoding = {name: {"chunks": (1, 2, NUM_Y, 5)} for name in ("h", "q")}
    dataset().to_zarr(path, zarr_format=3, encoding=encoding, consolidated=False)
    return BY_NAME


def write_components(path):
    """One array in a group, with the fields on its third axis, x before y."""
    with h5py.File(path, "w") as file:
        file.attrs["Re"] = 100.0
        file["runs/state"] = coded(2).transpose(0, 1, 2, 4, 3)  # (n, t, f, x, y)
        file["runs/state"].attrs["nu"] = [0.5, 0.25]
        file["time"], file["lat"], file["lon"] = (dataset()[name].values for name in ("time", "lat", "lon"))
    fields = {name: {"array": "runs/state", "index": number} for number, name in enumerate(("height", "tracer"))}
    return {
        "axes": ["trajectory", "time", "component", "x", "y"],
        "fields": {**fields, "height": {**fields["height"], "unit": "m"}},
        **ALONG,
        "parameters": {"nu": {"attribute": "nu"}, "Re": {"attribute": "Re"}},
    }


def write_npy(path):
    """One array and nothing else: the description has the numbers."""
    np.save(path, np.asfortranarray(coded(2).transpose(0, 2, 1, 3, 4).astype(">f8")))
    return {
        "axes": ["trajectory", "component", "time", "y", "x"],
        "fields": {"height": {"index": 0, "unit": "m"}, "tracer": {"index": 1}},
        **ALONG,
        "spacing": {"y": 0.25, "x": "1.25e-1"},
        "time_step": 0.5,
        "parameters": {"Re": 100},
    }


KINDS = {
    "netCDF-4": ("a.nc", write_netcdf4),
    "netCDF-3": ("a.nc", write_netcdf3),
    "Zarr 2": ("a.zarr", write_zarr2),
    "Zarr 3": ("a.zarr", write_zarr3),
    "HDF5 in groups": ("a.h5", write_components),
    "NumPy": ("a.npy", write_npy),
}


def write(folder, kind="netCDF-4", **changes):
    """Write a file and its description into a folder; return the description's path."""
    name, writer = KINDS[kind]
    folder.mkdir(parents=True, exist_ok=True)
    description = {"system": "advection", **writer(folder / name), **changes}
    return describe(folder, {key: value for key, value in description.items() if value is not None})


def describe(folder, description):
    path = folder / "matey.yaml"
    path.write_text(yaml.safe_dump(description, sort_keys=False))
    return path


def flow(axes="time y x", ends="wall", **keys):
    """A description of cells and steps of size 1 with equal ends everywhere, but for what ``keys`` say."""
    axes = axes.split()
    grid = [axis for axis in axes if axis in ("z", "y", "x")]
    sides = {"spacing": dict.fromkeys(grid, 1), "time_step": 1, "boundary": dict.fromkeys(grid, ends)}
    return {"system": "flow", "axes": axes, **sides, **keys}


def guessed(path, folder=None):
    """What is guessed of a file, for a description in its folder or in one above."""
    return guess_description(path, folder or path.parent)


def answered(path, folder=None, **answers):
    """Open a file, and others like it, by its guessed description with the questions answered."""
    folder = folder or path.parent
    return open_dataset(describe(folder, yaml.safe_load(guessed(path, folder).text) | answers))
