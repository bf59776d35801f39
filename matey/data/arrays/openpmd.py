"""What the openPMD standard (1.1) has beside a mesh in HDF5: names of its axes, sizes of its cells, the unit of its values."""

from __future__ import annotations

from dataclasses import dataclass

import h5py
import numpy as np

from matey.data.arrays.stored import as_number, as_text

_BASE_UNITS = ("m", "kg", "s", "A", "K", "mol", "cd")


@dataclass(frozen=True)
class Mesh:
    """Description of a dataset as a mesh.

    Attributes:
        axes: names of its axes in the order of the dataset; empty where they are not those of its grid.
        steps: size of a cell along each of these.
        unit: unit of the values as they are stored, in the syntax of UDUNITS.
    """

    axes: tuple[str, ...]
    steps: tuple[float, ...]
    unit: str


def mesh_of(item: h5py.Dataset) -> Mesh | None:
    """Return the description of a dataset, None where it is no mesh; its record is itself, or the group that it lies in."""
    record = next((each.attrs for each in (item, item.parent) if "axisLabels" in each.attrs), None)
    if record is None:
        return None
    labels = [as_text(label) for label in np.ravel(record["axisLabels"])]
    steps = [*map(float, np.ravel(record.get("gridSpacing", ())))]
    if as_text(record.get("dataOrder")) == "F":  # written by Fortran, whose first axis is the last one here
        labels, steps = labels[::-1], steps[::-1]
    is_whole = len(labels) == len(steps) == item.ndim  # of azimuthal modes, the first axis has no label
    unit = _unit(as_number(item.attrs.get("unitSI")) or 1.0, np.ravel(record.get("unitDimension", ())))
    return Mesh(tuple(labels) if is_whole else (), tuple(steps) if is_whole else (), unit)


def constant_of(item: h5py.Group) -> str:
    """Return the value of a record that has one for all cells in the place of a dataset, empty where it is none."""
    value = as_number(item.attrs.get("value")) if "shape" in item.attrs else None
    return "" if value is None else f"{value:g}"


def _unit(scale: float, powers: np.ndarray) -> str:
    """Return a unit such as ``1e-15 m s-1`` from its size in SI units and its powers of the base units."""
    base = [
        name + ("" if power == 1 else f"{power:g}")
        for name, power in zip(_BASE_UNITS, powers, strict=False)
        if power != 0
    ]
    return " ".join([f"{scale:.7g}", *base] if scale != 1 or not base else base)
