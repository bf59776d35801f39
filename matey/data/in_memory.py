"""Turns arrays in memory into trajectories, and explains why others cannot be."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any, get_args

import numpy as np

from matey.data.names import check_fields
from matey.data.trajectory import NO_AXIS, Boundary, Coordinates, DataError, Trajectory

ENDS = tuple(kind for kind in get_args(Boundary) if kind != NO_AXIS)
"""Kinds of boundary at the ends of an axis that the grid has."""

# Beginnings of the names of real types in NumPy and PyTorch.
_REAL = ("bool", "float", "bfloat", "int", "uint", "<f", ">f", "<i", ">i", "<u", ">u")


def trajectories_of(
    system: str,
    fields: Mapping[str, Any],
    given: Mapping[str, Any],
    *,
    spacing: Sequence[float],
    boundary: Sequence[Boundary],
    time_step: float,
    units: Mapping[str, str],
    parameters: object,
    coordinates: Mapping[str, Coordinates],
) -> tuple[Trajectory, ...]:
    """Return the trajectories in arrays, see `matey.data.trajectories.TrajectorySet.from_arrays`.

    Raises:
        DataError: an argument has the wrong kind or shape.
    """
    _check_forms(system, fields, given, spacing, boundary, units)
    check_fields(system, fields)
    num_axes, shapes = len(spacing), {name: tuple(array.shape) for name, array in fields.items()}
    shape = next(iter(shapes.values()), ())
    axes = f"(n, t, {', '.join('zyx'[3 - num_axes :])})"
    if not 1 <= num_axes <= 3 or len(boundary) != num_axes:
        raise DataError(
            f"{system}: expected a cell size and a boundary for each of one to three grid axes, got the spacing "
            f"{tuple(spacing)} and the boundaries {tuple(boundary)}."
        )
    if len(shape) != num_axes + 2 or 0 in shape or len(set(shapes.values())) > 1:
        raise DataError(
            f"{system}: expected arrays {axes} of one shape, to go with {num_axes} cell sizes, got "
            f"{', '.join(f'{name} {each}' for name, each in shapes.items()) or 'none'}"
            f"{'; array[None] has the axis n for a single trajectory' if len(shape) == num_axes + 1 else ''}."
        )
    for name, array in given.items():
        if tuple(array.shape) not in (shape, (shape[0], *shape[2:])) or name in fields:
            raise DataError(
                f"{system}: expected a given field of the shape {shape}, or without time, that is not among those "
                f"to predict; got {name} {tuple(array.shape)}."
            )
    if unknown := [str(kind) for kind in boundary if kind not in ENDS]:
        raise DataError(f"{system}: expected boundaries {', '.join(ENDS)}, got {', '.join(unknown)}.")
    steps = [_number(step) for step in (*spacing, time_step)]
    if any(step is None or not 0 < step < math.inf for step in steps):
        raise DataError(
            f"{system}: expected numbers as steps above 0 in space and time, got {tuple(spacing)} and {time_step!r}."
        )
    _check_coordinates(system, coordinates, dict(zip(("time", *"zyx"[3 - num_axes :]), shape[1:], strict=True)))
    missing = 3 - num_axes
    grid_z, grid_y, grid_x = (1,) * missing + shape[2:]
    step_z, step_y, step_x = (1.0,) * missing + tuple(float(step) for step in spacing)
    end_z, end_y, end_x = (NO_AXIS,) * missing + tuple(boundary)
    return tuple(
        Trajectory(
            source=Path("memory"),
            name=str(number),
            num_frames=shape[1],
            grid=(grid_z, grid_y, grid_x),
            spacing=(step_z, step_y, step_x),
            boundary=(end_z, end_y, end_x),
            time_step=float(time_step),
            parameters=own,
        )
        for number, own in enumerate(_parameters_of_each(system, parameters, shape[0]))
    )


def _parameters_of_each(system: str, parameters: object, count: int) -> list[dict[str, float]]:
    """Return the parameters of each of ``count`` trajectories.

    Raises:
        DataError: parameters are not numbers, or not one for each trajectory.
    """
    if parameters is None:
        parameters = {}
    if isinstance(parameters, Mapping):
        columns = {name: _column(system, name, values, count) for name, values in parameters.items()}
        return [{name: values[number] for name, values in columns.items()} for number in range(count)]
    is_row = isinstance(parameters, Sequence) and not isinstance(parameters, str)
    given: list[object] = [*parameters] if isinstance(parameters, Sequence) and is_row else [None]
    rows = [each for each in given if isinstance(each, Mapping)]
    if len(rows) < len(given):
        raise DataError(
            f"{system}, parameters: expected numbers by name for each trajectory, such as [{{'nu': 0.1}}, {{'nu': 0.2}}], or "
            f"an array for each name, such as {{'nu': array}}, got {_what(parameters)}."
        )
    if len(rows) not in (0, count):
        raise DataError(f"{system}: expected parameters of {count} trajectories, got {len(rows)}.")
    for name, value in (item for each in rows for item in each.items()):
        if not isinstance(name, str) or _number(value) is None:
            raise DataError(f"{system}, parameters: expected a number for {name!r}, got {_what(value)}.")
    return [{name: float(value) for name, value in each.items()} for each in rows] or [{} for _ in range(count)]


def _column(system: str, name: object, values: object, count: int) -> list[float]:
    """Return the value of one parameter for each trajectory."""
    if (alike := _number(values)) is not None and isinstance(name, str):
        return [alike] * count
    array = on_the_host(values) if isinstance(values, list | tuple) or hasattr(values, "shape") else np.array(None)
    if array.shape != (count,) or array.dtype.kind not in "fiub" or not isinstance(name, str):
        raise DataError(
            f"{system}, parameters: expected a number for {name!r}, or one for each of {count} trajectories, got "
            f"{_what(values)}."
        )
    return [float(value) for value in array]


def _number(value: object) -> float | None:
    """Return a real number, also from an array or tensor without axes; None for anything else."""
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):
        value = value.item()
    return float(value) if isinstance(value, Real) else None


def _what(value: object) -> str:
    """Return a value as an error names it: a text or number itself, the shape of an array, else the type."""
    if isinstance(value, str | complex):
        return repr(value)
    shape = f" of the shape {tuple(value.shape)}" if hasattr(value, "shape") else ""
    return f"{type(value).__name__}{shape}"


def _check_coordinates(system: str, coordinates: Mapping[str, Coordinates], sizes: Mapping[str, int]) -> None:
    """Raise DataError if coordinates do not match the frames and cells, whose numbers along each axis are ``sizes``."""
    for axis, own in coordinates.items():
        if axis not in sizes or not isinstance(own, Coordinates):
            raise DataError(
                f"{system}, coordinates: expected Coordinates along {', '.join(sizes)}, got {type(own).__name__} along {axis}."
            )
        values = np.asarray(own.values)
        if values.shape != (sizes[axis],) or not (np.diff(values) > 0).all():
            raise DataError(
                f"{system}, coordinates: expected {sizes[axis]} numbers along {axis} that increase, got "
                f"{'others' if values.shape == (sizes[axis],) else f'the shape {values.shape}'}."
            )


def _check_forms(system: str, fields: object, given: object, spacing: object, boundary: object, units: object) -> None:
    """Raise DataError if arrays in memory, or the arguments that describe them, have the wrong kind."""
    is_row = {
        name: hasattr(value, "__len__") and not isinstance(value, str | Mapping)
        for name, value in (("spacing", spacing), ("boundary", boundary))
    }
    for name, value, is_so, expected in (
        ("spacing", spacing, is_row["spacing"], "a cell size for each grid axis, such as (0.1, 0.1)"),
        ("boundary", boundary, is_row["boundary"], "a kind for each grid axis, such as ('wall', 'periodic')"),
        ("units", units, isinstance(units, Mapping), "a unit by the name of a field, such as {'height': 'm'}"),
    ):
        if not is_so:
            raise DataError(f"{system}, {name}: expected {expected}, got {type(value).__name__}.")
    names = [*_names_of_arrays(system, "fields", fields), *_names_of_arrays(system, "given", given)]
    assert isinstance(units, Mapping)
    if unknown := [str(name) for name in units if name not in names]:
        raise DataError(
            f"{system}, units: {', '.join(unknown)} is none of the fields {', '.join(names)}; correct the name."
        )


def _names_of_arrays(system: str, what: str, arrays: object) -> list[str]:
    """Return the names of arrays; raise DataError if one does not hold real numbers or is masked."""
    if not isinstance(arrays, Mapping) or not all(isinstance(name, str) for name in arrays):
        came = type(arrays).__name__
        if isinstance(arrays, Mapping):
            came = f"the names {', '.join(map(repr, arrays))}"
        raise DataError(f"{system}, {what}: expected an array for each name, such as {{'height': array}}, got {came}.")
    for name, array in arrays.items():
        dtype = str(getattr(array, "dtype", "")).removeprefix("torch.")
        if not dtype.startswith(_REAL):
            raise DataError(
                f"{system}: expected an array of real numbers for {name}, got {type(array).__name__} of {dtype or 'no type'}."
            )
        if np.ma.isMaskedArray(array):
            raise DataError(
                f"{system}: {name} is masked; masks are not supported: cut a box that has none, or fill cells."
            )
    return [*arrays]


def on_the_host(values: Any) -> np.ndarray:  # noqa: ANN401 (this module does without PyTorch)
    """Return an array or tensor as an array of NumPy."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        values = values.float() if str(values.dtype) == "torch.bfloat16" else values
    return np.asarray(values)
