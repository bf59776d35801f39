"""Writes forecasts as a Zarr store of format 2, with the names and attributes by which xarray opens it as a data set."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal

import numpy as np
import zarr

from matey.evaluate.forecasts.contents import Contents
from matey.evaluate.forecasts.formats import ForecastFile

CHUNK = 2**20
"""Largest number of cells in a chunk, unless a single layer has more; writing part of a chunk rewrites the whole."""


def open_file(path: Path, contents: Contents, mode: Literal["r", "r+"]) -> ForecastFile:
    """Open a store that `make` has made, to read (``r``), or to read and write (``r+``)."""
    # There is nothing to close: every chunk is a file, written at once.
    return ForecastFile(contents, zarr.open_group(path, mode=mode, zarr_format=2), lambda: None)


def layers_together(contents: Contents) -> int:
    """Return the number of layers of a chunk along the slowest axis of the grid."""
    _, _, layers, *layer = contents.shape
    return min(layers, max(1, CHUNK // math.prod(layer)))


def make(path: Path, contents: Contents, stretch: int) -> None:
    """Make a store without values; a chunk holds ``stretch`` frames of one field and trajectory, or some layers of a frame."""
    group = zarr.open_group(path, mode="w", zarr_format=2, attributes=dict(contents.attributes))
    for name, coordinate in contents.coordinates.items():
        assert coordinate.values is not None, f"coordinate {name} has no values"
        is_text = coordinate.values.dtype == object
        values = coordinate.values.astype(str) if is_text else coordinate.values
        about = {"_ARRAY_DIMENSIONS": list(coordinate.dims), **coordinate.attributes}
        # No fill value: xarray would read a 0 as missing.
        group.create_array(name, data=values, fill_value=None, attributes=about)
    grid = layers_together(contents), *contents.shape[3:]
    for name, field in contents.fields.items():
        about = {"_ARRAY_DIMENSIONS": list(field.dims), **field.attributes, "coordinates": contents.further}
        group.create_array(
            name, shape=contents.shape, chunks=(1, stretch, *grid), dtype="f4", fill_value=np.nan, attributes=about
        )
    zarr.consolidate_metadata(path, zarr_format=2)
