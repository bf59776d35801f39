"""Forecasts as netCDF-4 by the CF conventions, which xarray, ncdump, ParaView and the tools of climate research read."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import netCDF4
import numpy as np

from matey.data.trajectories import Cells
from matey.evaluate.forecasts.contents import Contents

MISSING = np.float32(np.nan)


class NetcdfFile:
    """An open file; see `matey.evaluate.forecasts.formats.ForecastFile`."""

    def __init__(self, path: Path, contents: Contents, mode: Literal["r", "r+"]) -> None:
        """Open a file that `make` has made, to read (``r``), or to read and write (``r+``)."""
        self._contents = contents
        self._file = netCDF4.Dataset(path, mode)
        self._file.set_auto_mask(False)

    def write(self, place: int, step: int, frames: np.ndarray, cells: Cells) -> None:
        """Write frames of a box of cells."""
        for name, values in self._contents.values_of(frames).items():
            self._file[name][place, step : step + len(frames), *self._contents.box(cells)] = values

    def read(self, first: int, end: int, start: int, stop: int, cells: Cells | None = None) -> np.ndarray:
        """Read frames of some trajectories."""
        box = slice(first, end), slice(start, stop), *self._contents.box(cells)
        values = {name: self._file[name][box] for name in self._contents.fields}
        return self._contents.frames_of(values)

    def flush(self) -> None:
        """Hand all that was written to the operating system."""
        self._file.sync()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def make(path: Path, contents: Contents, stretch: int) -> None:
    """Make a file without values; they lie in one piece, so that ``stretch`` does not matter."""
    with netCDF4.Dataset(path, "w", format="NETCDF4") as file:
        file.setncatts(contents.attributes)
        for name, size in contents.sizes.items():
            file.createDimension(name, size)
        for name, coordinate in contents.coordinates.items():
            assert coordinate.values is not None, f"coordinate {name} has no values"
            kind = str if coordinate.values.dtype == object else coordinate.values.dtype
            variable = file.createVariable(name, kind, coordinate.dims)
            variable.setncatts(coordinate.attributes)
            variable[:] = coordinate.values
        for name, field in contents.fields.items():
            variable = file.createVariable(name, "f4", field.dims, contiguous=True, fill_value=MISSING)
            variable.setncatts({**field.attributes, "coordinates": contents.further})
            variable[(-1,) * len(field.dims)] = MISSING  # sets all its room aside


open_file = NetcdfFile
