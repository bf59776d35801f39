"""Writes forecasts in The Well's HDF5 layout; The Well's reader and ``matey.open_dataset`` open them as trajectories.

Every field is stored in ``t0_fields``, also each component of a vector. `matey.well_file` defines the layout.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import h5py
import numpy as np

from matey.evaluate.forecasts.contents import Contents
from matey.evaluate.forecasts.formats import ForecastFile
from matey.well_file import KINDS, add_fields, add_scalars, begin, group_of

GROUP = group_of(0)
PARAMETER = "parameter_"


def open_file(path: Path, contents: Contents, mode: Literal["r", "r+"]) -> ForecastFile:
    """Open a file that `make` has made, to read (``r``), or to read and write (``r+``)."""
    file = h5py.File(path, mode, locking="best-effort")
    arrays = {name: _Turned(file[GROUP][name]) for name in contents.fields}
    return ForecastFile(contents, arrays, file.close)


class _Turned:
    """A view of a field ``(trajectory, time, x, y, [z])`` on disk with its grid axes in reverse order."""

    def __init__(self, field: h5py.Dataset) -> None:
        self._field = field

    def __getitem__(self, box: tuple[slice, ...]) -> np.ndarray:
        values = np.asarray(self._field[*box[:2], *box[:1:-1]])
        return values.transpose(0, 1, *range(values.ndim - 1, 1, -1))

    def __setitem__(self, box: tuple[int | slice, ...], values: np.ndarray) -> None:
        self._field[*box[:2], *box[:1:-1]] = values.transpose(0, *range(values.ndim - 1, 0, -1))


def layers_together(contents: Contents) -> None:
    """Only one process at a time may have the file open to write."""


def make(path: Path, contents: Contents, stretch: int) -> None:
    """Make a file without values; its arrays are contiguous, so ``stretch`` is not used."""
    axes = [axis for axis in "xyz" if axis in contents.sizes]
    num_trajectories, num_steps = contents.sizes["trajectory"], contents.sizes["time"]
    with h5py.File(path, "w") as file:
        file.attrs.update(contents.attributes)
        places = {axis: _values(contents, axis) for axis in axes}
        ends = {axis: KINDS.get(contents.coordinates[axis].attributes["boundary"]) for axis in axes}
        # The layout cannot describe an axis whose two ends differ.
        alike = {axis: kind for axis, kind in ends.items() if kind is not None}
        begin(file, contents.attributes["system"], num_trajectories, _values(contents, "time"), places, alike)
        names = [name for name in contents.coordinates if name.startswith(PARAMETER)]
        add_scalars(file, {}, {name.removeprefix(PARAMETER): _values(contents, name) for name in names})
        add_fields(file, 0, contents.fields, num_frames=num_steps, fill=np.nan)
        for name in contents.fields:
            field = file[GROUP][name]
            field[(-1,) * field.ndim] = np.nan  # allocates all of its disk space


def _values(contents: Contents, name: str) -> np.ndarray:
    values = contents.coordinates[name].values
    assert values is not None, f"{name} is a coordinate"
    return values
