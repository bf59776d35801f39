"""Writes forecasts as netCDF-4 by the CF conventions, for xarray, ncdump, ParaView and the tools of climate research."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import netCDF4
import numpy as np

from matey.evaluate.forecasts.contents import Contents
from matey.evaluate.forecasts.formats import ForecastFile

MISSING = np.float32(np.nan)


def open_file(path: Path, contents: Contents, mode: Literal["r", "r+"]) -> ForecastFile:
    """Open a file that `make` has made, to read (``r``), or to read and write (``r+``)."""
    file = netCDF4.Dataset(path, mode)
    file.set_auto_mask(False)
    return ForecastFile(contents, file, file.close)


def layers_together(contents: Contents) -> None:
    """Only one process at a time may have the file open to write."""


def make(path: Path, contents: Contents, stretch: int) -> None:
    """Make a file without values; its arrays are contiguous, so ``stretch`` is not used."""
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
            variable[(-1,) * len(field.dims)] = MISSING  # allocates all of its disk space
