"""Forecasts in The Well's HDF5 layout, which its own reader and ``matey.open_dataset`` open as trajectories.

Every field is one of ``t0_fields``, the components of vectors by their own names. The layout itself is in `matey.well_file`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import h5py
import numpy as np

from matey.data.trajectories import Cells
from matey.evaluate.forecasts.contents import Contents
from matey.well_file import KINDS, add_fields, add_scalars, begin, group_of

GROUP = group_of(0)
PARAMETER = "parameter_"


class WellForecast:
    """An open file; see `matey.evaluate.forecasts.formats.ForecastFile`."""

    def __init__(self, path: Path, contents: Contents, mode: Literal["r", "r+"]) -> None:
        """Open a file that `make` has made, to read (``r``), or to read and write (``r+``)."""
        self._contents = contents
        self._file = h5py.File(path, mode, locking="best-effort")

    def write(self, place: int, step: int, frames: np.ndarray, cells: Cells) -> None:
        """Write frames of a box of cells."""
        box = self._contents.box(cells)[::-1]
        for name, values in self._contents.values_of(frames).items():
            self._file[GROUP][name][place, step : step + len(frames), *box] = _turned(values[None])[0]

    def read(self, first: int, end: int, start: int, stop: int, cells: Cells | None = None) -> np.ndarray:
        """Read frames of some trajectories."""
        group, box = self._file[GROUP], self._contents.box(cells)[::-1]
        return self._contents.frames_of(
            {name: _turned(group[name][first:end, start:stop, *box]) for name in self._contents.fields}
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
        places = {axis: _values(contents, axis) for axis in axes}
        ends = {axis: KINDS.get(contents.coordinates[axis].attributes["boundary"]) for axis in axes}
        # The layout has no word for ends that are not alike.
        alike = {axis: kind for axis, kind in ends.items() if kind is not None}
        begin(file, contents.attributes["system"], num_trajectories, _values(contents, "time"), places, alike)
        names = [name for name in contents.coordinates if name.startswith(PARAMETER)]
        add_scalars(file, {}, {name.removeprefix(PARAMETER): _values(contents, name) for name in names})
        add_fields(file, 0, contents.fields, num_frames=num_steps, fill=np.nan)
        for name in contents.fields:
            field = file[GROUP][name]
            field[(-1,) * field.ndim] = np.nan  # sets all its room aside


open_file = WellForecast


def _values(contents: Contents, name: str) -> np.ndarray:
    values = contents.coordinates[name].values
    assert values is not None, f"{name} is a coordinate"
    return values


def _turned(values: np.ndarray) -> np.ndarray:
    """Reverse the order of the grid axes, x first on disk and last here."""
    order = range(values.ndim)
    return values.transpose(*order[:2], *reversed(order[2:]))
