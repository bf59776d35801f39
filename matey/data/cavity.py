"""Lid-driven cavity of a conducting fluid (MHD): flow and magnetic field in a box with walls all round.

Two layouts, one trajectory per file:

* ``numpy_Bx_<b>_Re_<r>.npy``: an array (t, y, x, 4) of velocity_x, velocity_y, magnetic_x, magnetic_y, as the paper on
  MATEY used it. The file holds nothing else: ``b`` is the applied field along x, ``r`` the magnetic Reynolds number. Grid
  points lie on [-0.5, 0.5]^2, walls included, and frames are 0.01 apart. The length of the box and the interval follow
  from the public input deck of VERTEX-CFD and the paper's number of samples; no file states them.
* HDF5 with root attributes ``system = "mhd_cavity"``, ``Bx`` (applied field along x), ``Re`` and ``Re_m`` (kinetic and
  magnetic Reynolds number), and root datasets

  ============  ============  ==============================================================
  ``velocity``  (t, y, x, 2)  components x, y, in units of the lid's speed
  ``magnetic``  (t, y, x, 2)  the whole magnetic field, components x, y, in Alfven units
  ``x``, ``y``  (x), (y)      coordinates of the values, increasing; at cell centres or on walls
  ``t``         (t)           times of the frames, increasing
  ============  ============  ==============================================================

Frame 0 may violate the boundary conditions, since the lid starts at once; it is read like any other.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from matey.config import DataDescription
from matey.config.description import FieldSource, ParameterSource
from matey.data.arrays import map_npy
from matey.data.described import DataFile, DescribedFiles
from matey.data.hdf5 import attribute_of, hdf5_reader, is_npy
from matey.data.stored import as_text
from matey.data.trajectories import Coordinates, DataError, Reader

SYSTEM = "mhd_cavity"
HDF5 = DataDescription.model_validate(
    {
        "system": SYSTEM,
        "axes": ["time", "y", "x", "component"],
        "fields": {
            f"{array}_{axis}": {"array": array, "index": index, "unit": "1"}
            for array in ("velocity", "magnetic")
            for index, axis in enumerate("xy")
        },
        "spacing": {"y": "y", "x": "x"},
        "time_step": "t",
        "boundary": {"y": "wall", "x": "wall"},
        "parameters": {name: {"attribute": name} for name in ("Bx", "Re", "Re_m")},
    }
)
_NUMPY_NAME = re.compile(r"numpy_Bx_[-+.\de]+_Re_[-+.\de]+\.npy")


class CavityFiles(DescribedFiles):
    """Files of the HDF5 layout."""

    length_unit = time_unit = "1"


class CavityArrays(CavityFiles):
    """Arrays of the published layout, whose places follow from the number of points."""

    def _read_coordinates(self, axis: str, trajectories: Sequence[int]) -> Iterator[Coordinates | None]:
        for about in (self.trajectories[number] for number in trajectories):
            places = None if axis == "time" else np.linspace(-0.5, 0.5, about.grid["zyx".index(axis)])
            yield None if places is None else Coordinates(places, self.length_unit)


def open_array(path: Path) -> CavityArrays:
    """Describe the trajectory of a ``.npy`` file.

    Raises:
        DataError: the array is truncated or not (t, y, x, 4).
    """
    array = map_npy(path)
    shape, dtype = array.shape, array.dtype
    if len(shape) != 4 or shape[-1] != len(HDF5.fields) or 0 in shape or 1 in shape[1:3] or dtype.kind != "f":
        raise DataError(
            f"{path}: expected an array (t, y, x, 4) of {', '.join(HDF5.fields)}, got {shape} of {dtype}; "
            f"write the file again in this layout."
        )
    description = {
        "fields": {name: FieldSource(index=index, unit="1") for index, name in enumerate(HDF5.fields)},
        "spacing": {"y": 1 / (shape[1] - 1), "x": 1 / (shape[2] - 1)},
        "time_step": 0.01,
        "parameters": {"Bx": ParameterSource(in_name="Bx_{}"), "Re_m": ParameterSource(in_name="Re_{}")},
    }
    return CavityArrays(HDF5.model_copy(update=description), [DataFile((path,))])


HDF5_READER = hdf5_reader(
    layout=f"cavity HDF5 (attribute system = {SYSTEM!r}, 'velocity' and 'magnetic', each (t, y, x, 2), 'x', 'y', 't')",
    holds=lambda file: as_text(attribute_of(file, "system")) == SYSTEM,
    open=lambda path: CavityFiles(HDF5, [DataFile((path,))]),
)
ARRAY_READER = Reader(
    layout="cavity arrays (numpy_Bx_<b>_Re_<r>.npy, (t, y, x, 4))",
    suffixes=(".npy",),
    recognises=lambda path: is_npy(path) and _NUMPY_NAME.fullmatch(path.name) is not None,  # the content does not tell
    open=open_array,
)
