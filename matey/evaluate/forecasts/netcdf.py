"""Writes forecasts as netCDF-4 by the CF conventions, for xarray, ncdump, ParaView and the tools of climate research."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import netCDF4
import numpy as np

from matey.data.trajectories import Cells
from matey.evaluate.forecasts.contents import Contents
from matey.evaluate.forecasts.formats import ForecastFile

MISSING = np.float32(np.nan)


def open_file(path: Path, contents: Contents, mode: Literal["r", "r+"]) -> ForecastFile:
    """Open a file that `make` has made, to read (``r``), or to read and write (``r+``)."""
    with _errors_of_disks():
        file = netCDF4.Dataset(path, mode)
    file.set_auto_mask(False)
    return _File(contents, file, _errors_of_disks()(file.close))


class _File(ForecastFile):
    def write(self, place: int, step: int, frames: np.ndarray, cells: Cells) -> None:
        """Write frames, see `ForecastFile.write`."""
        with _errors_of_disks():
            super().write(place, step, frames, cells)


@contextmanager
def _errors_of_disks() -> Iterator[None]:
    """Raise OSError where the netCDF library says no more than that HDF5 failed, as it does where a disk is full."""
    try:
        yield
    except RuntimeError as error:
        raise OSError(f"{error}, as on a full disk") from error


def layers_together(contents: Contents) -> None:
    """Only one process at a time may have the file open to write."""


@_errors_of_disks()
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
