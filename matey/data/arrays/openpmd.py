"""Reads the attributes of a mesh in HDF5 by the openPMD standard (1.1): names of its axes, cell sizes, unit of its values."""

from __future__ import annotations

from dataclasses import dataclass

import h5py
import numpy as np

from matey.data.arrays.stored import as_number, as_text
from matey.data.hdf5 import attribute_of

_BASE_UNITS = ("m", "kg", "s", "A", "K", "mol", "cd")


@dataclass(frozen=True)
class Mesh:
    """Description of a dataset as a mesh.

    Attributes:
        axes: names of the dataset's axes in order; empty where the file does not label all of them.
        steps: cell size along each of these axes.
        unit: unit of the stored values, in the syntax of UDUNITS.
    """

    axes: tuple[str, ...]
    steps: tuple[float, ...]
    unit: str


def mesh_of(item: h5py.Dataset) -> Mesh | None:
    """Return a dataset's description as a mesh, None if it is not one; the attributes are its own or its group's."""
    record = next((each for each in (item, item.parent) if "axisLabels" in each.attrs), None)
    if record is None:
        return None
    labels = [as_text(label) for label in np.ravel(attribute_of(record, "axisLabels"))]
    steps = [*map(float, np.ravel(attribute_of(record, "gridSpacing", ())))]
    if as_text(attribute_of(record, "dataOrder")) == "F":  # written by Fortran, whose first axis is the last one here
        labels, steps = labels[::-1], steps[::-1]
    is_whole = len(labels) == len(steps) == item.ndim  # the first axis of azimuthal modes has no label
    unit = _unit(as_number(attribute_of(item, "unitSI")) or 1.0, np.ravel(attribute_of(record, "unitDimension", ())))
    return Mesh(tuple(labels) if is_whole else (), tuple(steps) if is_whole else (), unit)


def constant_of(item: h5py.Group) -> str:
    """Return the value of a record that holds one for all cells instead of a dataset, empty for any other group."""
    value = as_number(attribute_of(item, "value")) if "shape" in item.attrs else None
    return "" if value is None else f"{value:g}"


def _unit(scale: float, powers: np.ndarray) -> str:
    """Return a unit such as ``1e-15 m s-1`` from its size in SI units and its powers of the base units."""
    base = [
        name + ("" if power == 1 else f"{power:g}")
        for name, power in zip(_BASE_UNITS, powers, strict=False)
        if power != 0
    ]
    return " ".join([f"{scale:.7g}", *base] if scale != 1 or not base else base)
