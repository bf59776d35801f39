"""Forecasts as a Zarr store of format 2, with the names and attributes by which xarray takes it for a data set."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal

import numpy as np
import zarr

from matey.data.trajectories import Cells
from matey.evaluate.forecasts.contents import Contents

CHUNK = 2**20
"""Cells of a chunk at most, where a layer has no more; a part of a chunk is written by way of the whole."""


class ZarrFile:
    """An open store; see `matey.evaluate.forecasts.formats.ForecastFile`."""

    def __init__(self, path: Path, contents: Contents, mode: Literal["r", "r+"]) -> None:
        """Open a store that `make` has made, to read (``r``), or to read and write (``r+``)."""
        self._contents = contents
        self._group = zarr.open_group(path, mode=mode, zarr_format=2)

    def write(self, place: int, step: int, frames: np.ndarray, cells: Cells) -> None:
        """Write frames of a box of cells."""
        for name, values in self._contents.values_of(frames).items():
            self._group[name][place, step : step + len(frames), *self._contents.box(cells)] = values

    def read(self, first: int, end: int, start: int, stop: int, cells: Cells | None = None) -> np.ndarray:
        """Read frames of some trajectories."""
        box = slice(first, end), slice(start, stop), *self._contents.box(cells)
        values = {name: np.asarray(self._group[name][box]) for name in self._contents.fields}
        return self._contents.frames_of(values)

    def flush(self) -> None:
        """Do nothing: every chunk is a file, written when it comes."""

    def close(self) -> None:
        """Do nothing: no file stays open."""


def make(path: Path, contents: Contents, stretch: int) -> None:
    """Make a store without values, with a chunk for ``stretch`` frames of a field of a trajectory, or some layers of one."""
    group = zarr.open_group(path, mode="w", zarr_format=2, attributes=dict(contents.attributes))
    for name, coordinate in contents.coordinates.items():
        assert coordinate.values is not None, f"coordinate {name} has no values"
        is_text = coordinate.values.dtype == object
        values = coordinate.values.astype(str) if is_text else coordinate.values
        about = {"_ARRAY_DIMENSIONS": list(coordinate.dims), **coordinate.attributes}
        # Without a fill value: xarray would take a 0 for missing.
        group.create_array(name, data=values, fill_value=None, attributes=about)
    _, _, layers, *layer = contents.shape
    grid = min(layers, max(1, CHUNK // math.prod(layer))), *layer
    for name, field in contents.fields.items():
        about = {"_ARRAY_DIMENSIONS": list(field.dims), **field.attributes, "coordinates": contents.further}
        group.create_array(
            name, shape=contents.shape, chunks=(1, stretch, *grid), dtype="f4", fill_value=np.nan, attributes=about
        )
    zarr.consolidate_metadata(path, zarr_format=2)


open_file = ZarrFile
