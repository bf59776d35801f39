"""Looks up what a file in The Well's layout says of its axes, boundaries and scalars, and names what is missing or wrong."""

from __future__ import annotations

import math
from typing import Any

import h5py
import numpy as np

from matey.data.coordinates import UNEVEN_SPACE, even_step, mean_step
from matey.data.hdf5 import attribute_of, check_claim
from matey.data.trajectories import Boundary, DataError
from matey.data.unwritten import check_values

_KINDS: dict[str, Boundary] = {"WALL": "wall", "OPEN": "open", "PERIODIC": "periodic"}


def our_axes(file: h5py.File, axes: tuple[str, ...]) -> tuple[str, ...]:
    """Return our name, x, y or z, of each grid axis of the file."""
    ours = ("x", "y", "z")[: len(axes)]
    if not 1 <= len(axes) <= 3 or len(set(axes)) != len(axes):
        raise DataError(
            f"{file.filename}, dimensions: expected one to three names in the attribute 'spatial_dims', got {axes}; "
            f"write the file again."
        )
    return axes if set(axes) == set(ours) else ours


def size_of(file: h5py.File, axis: str) -> int:
    """Return the number of cells or frames along an axis of the file.

    Raises:
        DataError: the coordinates are missing, empty or no numbers, or were never written.
    """
    item = member(file, f"dimensions/{axis}")
    shape = item.shape if isinstance(item, h5py.Dataset) and item.dtype.kind in "fiu" else None
    if not shape or 0 in shape:
        came = f"the shape {item.shape} of {item.dtype}" if isinstance(item, h5py.Dataset) else "a group"
        remedy = "the array is empty: leave this file out" if shape else "write them as such"
        raise DataError(
            f"{file.filename}, dimensions/{axis}: expected numbers along {axis}, one or more, got {came}; {remedy}."
        )
    check_values(item)
    return shape[-1]


def step_of(file: h5py.File, axis: str, index: int) -> float:
    """Return the time between the frames of a trajectory, or the size of its cells along a grid axis of the file."""
    places, label = places_of(file, axis, index), f"{file.filename}, dimensions/{axis}"
    return mean_step(places, label) if axis == "time" else even_step(places, label, UNEVEN_SPACE, "resample the data")


def places_of(file: h5py.File, axis: str, index: int) -> np.ndarray:
    """Return the coordinates of a trajectory, in float64; of a moving grid, those of the first frame."""
    item = member(file, f"dimensions/{axis}")
    places = item[index] if attribute(item, "sample_varying") else item[...]
    return np.asarray(places.reshape(-1, places.shape[-1])[0], dtype=np.float64)


def boundary_of(file: h5py.File, axis: str) -> Boundary:
    """Return the kind of an axis's ends, open by default; a mask over several axes counts only where it covers a whole face."""
    ends: list[Boundary] = ["open", "open"]
    for condition in file.get("boundary_conditions", {}).values():
        axes = [text_of(name) for name in attribute(condition, "associated_dims")]
        if axis in axes:
            kind = _kind(condition)
            stored = member(condition, "mask")
            check_values(stored)
            mask = stored[...]
            mask = mask.reshape(-1, *mask.shape[-len(axes) :]).all(axis=0)  # a varying mask counts where all agree
            mask = np.moveaxis(mask, axes.index(axis), 0)
            ends = [kind if mask[end].all() else before for end, before in zip((0, -1), ends, strict=True)]
    return ends[0] if ends[0] == ends[1] else "mixed"


def _kind(condition: h5py.Group) -> Boundary:
    name = text_of(attribute(condition, "bc_type")).upper()
    if name not in _KINDS:
        raise DataError(
            f"{condition.file.filename}, {condition.name}: expected bc_type {', '.join(_KINDS)}, got {name!r}; "
            f"write one of these."
        )
    return _KINDS[name]


def parameters_of(file: h5py.File, index: int) -> dict[str, float]:
    """Return the scalars that are single numbers, constant in time."""
    found = {}
    for name, item in file.get("scalars", {}).items():
        if item.dtype.kind in "fiu" and not attribute(item, "time_varying"):
            check_values(item)
            is_own = bool(attribute(item, "sample_varying"))
            if math.prod(item.shape[is_own:]) == 1:
                found[name] = float(np.reshape(item[index] if is_own else item[()], ()))
    return found


def member(group: h5py.Group, name: str) -> h5py.Group | h5py.Dataset:
    """Return a group or dataset that must be there."""
    item = group.get(name)
    if item is None:
        raise DataError(
            f"{group.file.filename}: expected {name!r}, as The Well's layout has it, found none; write it again."
        )
    check_claim(item)
    return item


def attribute(item: h5py.HLObject, name: str) -> Any:  # noqa: ANN401 (an attribute is of any type)
    """Return an attribute that must be there."""
    if (value := attribute_of(item, name)) is None:
        raise DataError(
            f"{item.file.filename}, {item.name}: expected the attribute {name!r}, as The Well's layout has it, found "
            f"only {', '.join(item.attrs) or 'none'}; write it again."
        )
    return value


def text_of(value: object) -> str:
    """Return a text that HDF5 may give as bytes."""
    return value.decode() if isinstance(value, bytes) else str(value)
