"""Forecasts in The Well's HDF5 layout, which its own reader and ``matey.open_dataset`` open as trajectories.

Every field is one of ``t0_fields``, the components of vectors by their own names. Groups, attributes and types are those of
``docs/data_format.md`` of The Well (Ohana et al. 2024, arXiv:2412.00568).
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import h5py
import numpy as np

from matey.evaluate.forecasts.contents import Contents

GROUP = "t0_fields"
KINDS = {"periodic": "PERIODIC", "wall": "WALL", "no_flux": "WALL", "open": "OPEN"}
NO_NAMES = np.array([], dtype=h5py.string_dtype())
PARAMETER = "parameter_"


class WellForecast:
    """An open file; see `matey.evaluate.forecasts.formats.ForecastFile`."""

    def __init__(self, path: Path, contents: Contents, mode: Literal["r", "r+"]) -> None:
        """Open a file that `make` has made, to read (``r``), or to read and write (``r+``)."""
        self._contents = contents
        self._file = h5py.File(path, mode, locking="best-effort")

    def write(self, first: int, step: int, frames: np.ndarray) -> None:
        """Write frames of some trajectories."""
        for name, values in self._contents.values_of(frames).items():
            self._file[GROUP][name][first : first + len(frames), step : step + frames.shape[1]] = _turned(values)

    def read(self, first: int, end: int, start: int, stop: int) -> np.ndarray:
        """Read frames of some trajectories."""
        group = self._file[GROUP]
        return self._contents.frames_of(
            {name: _turned(group[name][first:end, start:stop]) for name in self._contents.fields}
        )

    def flush(self) -> None:
        """Hand all that was written to the operating system."""
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def make(path: Path, contents: Contents, stretch: int) -> None:
    """Make a file without values; they lie in one piece, so that ``stretch`` does not matter."""
    axes = [axis for axis in "xyz" if axis in contents.sizes]
    num_trajectories, num_steps = contents.sizes["trajectory"], contents.sizes["time"]
    with h5py.File(path, "w") as file:
        file.attrs.update(contents.attributes)
        file.attrs.update(dataset_name=contents.attributes["system"], grid_type="cartesian", n_spatial_dims=len(axes))
        file.attrs["n_trajectories"], file.attrs["simulation_parameters"] = num_trajectories, NO_NAMES
        file.create_group("dimensions").attrs["spatial_dims"] = axes
        for name in ("time", *axes):
            _add(file["dimensions"], name, contents.coordinates[name].values, time_varying=name == "time")
        file.create_group("boundary_conditions")
        for axis in axes:
            _add_boundary(file, axis, contents)
        _add_scalars(file, contents)
        file.create_group(GROUP).attrs["field_names"] = list(contents.fields)
        for name in contents.fields:
            shape = num_trajectories, num_steps, *(contents.sizes[axis] for axis in axes)
            field = file[GROUP].create_dataset(name, shape, dtype="f4", fillvalue=np.nan)
            field.attrs.update(dim_varying=[True] * len(axes), sample_varying=True, time_varying=True)
            field[(-1,) * len(shape)] = np.nan  # sets all its room aside
        for group in ("t1_fields", "t2_fields"):
            file.create_group(group).attrs["field_names"] = NO_NAMES


def open_file(path: Path, contents: Contents, mode: Literal["r", "r+"]) -> WellForecast:
    """Open a file that `make` has made, to read (``r``), or to read and write (``r+``)."""
    return WellForecast(path, contents, mode)


def _add(
    group: h5py.Group, name: str, values: object, *, sample_varying: bool = False, time_varying: bool = False
) -> None:
    item = group.create_dataset(name, data=values, dtype="f4")
    item.attrs.update(sample_varying=sample_varying, time_varying=time_varying)


def _add_boundary(file: h5py.File, axis: str, contents: Contents) -> None:
    """Say what both ends of an axis are, where they are alike; the layout has no word for the rest."""
    kind, size = KINDS.get(contents.coordinates[axis].attributes["boundary"]), contents.sizes[axis]
    if kind is not None:
        condition = file.create_group(f"boundary_conditions/{axis}_{kind.lower()}")
        condition.attrs.update(associated_dims=[axis], associated_fields=NO_NAMES, bc_type=kind)
        condition.attrs.update(sample_varying=False, time_varying=False)
        condition["mask"] = np.isin(np.arange(size), (0, size - 1))


def _add_scalars(file: h5py.File, contents: Contents) -> None:
    scalars = {
        name.removeprefix(PARAMETER): coordinate.values
        for name, coordinate in contents.coordinates.items()
        if name.startswith(PARAMETER)
    }
    file.create_group("scalars").attrs["field_names"] = list(scalars) or NO_NAMES
    for name, values in scalars.items():
        _add(file["scalars"], name, values, sample_varying=True)


def _turned(values: np.ndarray) -> np.ndarray:
    """Reverse the order of the grid axes, x first on disk and last here."""
    order = range(values.ndim)
    return values.transpose(*order[:2], *reversed(order[2:]))
