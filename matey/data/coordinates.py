"""Coordinates that a file stores, and the spacing of cells and frames that follows from them."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np

from matey.data.hdf5 import read_part
from matey.data.trajectories import Coordinates, DataError
from matey.data.unwritten import check_values

UNEVEN_SPACE, UNEVEN_TIME = 1e-3, 0.1  # shares of the mean spacing; solvers save at the first step after each due time


def stored_coordinates(path: Path, name: str, index: tuple[int | slice, ...] = (slice(None),)) -> Coordinates:
    """Read coordinates without a unit from a dataset of an HDF5 file, or from a part of it.

    Raises:
        DataError: see ``read_part``.
    """
    return Coordinates(read_part(path, name, index).astype(np.float64), "1")


def stored_step(file: h5py.File, name: str, size: int, *, of_time: bool = False, or_more: bool = False) -> float:
    """Return the spacing of the coordinates in dataset ``name``, which must belong to ``size`` cells or frames.

    Args:
        file: the file that holds the dataset.
        name: path of the dataset in the file.
        size: number of cells or frames that the coordinates belong to.
        of_time: whether these are times, of which the mean step counts; cells must be evenly spaced.
        or_more: whether the dataset may hold more coordinates than ``size``; the surplus is ignored.

    Raises:
        DataError: the dataset is missing, has another size, does not increase, or has cells of several sizes.
    """
    coordinates = file.get(name)
    check_values(coordinates)
    shape = coordinates.shape if isinstance(coordinates, h5py.Dataset) else None
    if shape is None or len(shape) != 1 or shape[0] < size or (shape[0] > size and not or_more):
        came = "none" if coordinates is None else str(shape or "a group")
        raise DataError(
            f"{file.filename}, {name}: expected {size} coordinates to go with the fields, got {came}; "
            f"check the order of the grid axes in the fields."
        )
    places, label = coordinates[:size], f"{file.filename}, {name}"
    if of_time:
        return mean_step(places, label)
    return even_step(places, label, UNEVEN_SPACE, "resample the data on an even grid")


def line_of(places: np.ndarray, size: int) -> tuple[np.ndarray, int] | None:
    """Return the coordinates of ``size`` cells as one row, and the axis of ``places`` along which they change.

    MATLAB writes vectors with two axes, and mesh grids hold the coordinates of each cell. The result is None where coordinates
    change along several axes, as on curvilinear grids, or no axis has ``size`` of them.
    """
    for axis in (axis for axis, length in enumerate(places.shape) if length == size):
        lines = np.moveaxis(places, axis, 0).reshape(size, -1)
        distance = abs(lines[-1, 0] - lines[0, 0]) / max(1, size - 1)
        if not np.ptp(lines, axis=1).max() > UNEVEN_SPACE * distance:  # `mean_step` refuses values that are not finite
            return lines[:, 0], axis
    return None


def remedy_of_other(places: np.ndarray, size: int, axis: str) -> str:
    """Return advice on an array that does not hold the coordinates of ``size`` cells along an axis."""
    if places.size == size + 1 == max(places.shape):
        step = (places.max() - places.min()) / size
        return f"these may be the edges of the cells: write the size of a cell instead, such as {axis}: {step:.7g}"
    return "curvilinear grids are not supported" if places.ndim > 1 else "correct the order of the axes"


def mean_step(coordinates: np.ndarray, label: str) -> float:
    """Return the mean spacing of ``coordinates``, 1 for a single one; ``label`` names them in errors.

    Raises:
        DataError: there are none, they do not strictly increase, or are not finite.
    """
    coordinates = np.asarray(coordinates, dtype=np.float64)
    if not len(coordinates) or not np.isfinite(coordinates[0]):
        raise DataError(
            f"{label}: expected finite coordinates, got {coordinates[:1].tolist() or 'none'}; write them again."
        )
    if len(coordinates) == 1:
        return 1.0
    steps = np.diff(coordinates)
    if not ((steps > 0) & (steps < np.inf)).all():
        first = int(np.argmin((steps > 0) & (steps < np.inf)))
        raise DataError(
            f"{label}: expected increasing coordinates, got {coordinates[0]} to {coordinates[-1]}, and "
            f"{coordinates[first]} followed by {coordinates[first + 1]} at number {first + 1}; write them again."
        )
    return float(coordinates[-1] - coordinates[0]) / (len(coordinates) - 1)


def even_step(places: np.ndarray, label: str, tolerance: float, remedy: str) -> float:
    """Return the spacing of evenly spaced coordinates, 1 for a single one.

    Raises:
        DataError: the coordinates do not increase, or a step departs from the mean by more than ``tolerance`` times the mean.
    """
    mean = mean_step(places, label)
    steps = np.diff(places)
    # A file may store single precision; dates in seconds, which are large, would hide a missing minute within its rounding.
    precision = np.float32 if np.array_equal(places, places.astype(np.float32)) else np.float64
    rounding = 4 * float(np.finfo(precision).eps) * float(np.abs(places).max())
    uneven = np.abs(steps - mean) > tolerance * mean + rounding
    if uneven.any():
        worst = int(np.argmax(np.abs(steps - mean)))
        raise DataError(
            f"{label}: expected evenly spaced coordinates, got a step of {steps[worst]:.6g} at number {worst + 1} and "
            f"{mean:.6g} on the mean; uneven spacing is not supported: {remedy}."
        )
    return mean
