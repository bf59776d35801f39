"""Trajectories in arrays of this process, and what is said of arrays that are none; see `TrajectorySet.from_arrays`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any, get_args

import numpy as np

from matey.data.trajectories import Array, Cells, TrajectorySet
from matey.data.trajectory import NO_AXIS, Boundary, Coordinates, DataError, Trajectory

ENDS = tuple(kind for kind in get_args(Boundary) if kind != NO_AXIS)
"""Kinds of boundary at the ends of an axis that there is."""

# How the names of types of real numbers begin in NumPy and PyTorch.
_REAL = ("bool", "float", "bfloat", "int", "uint", "<f", ">f", "<i", ">i", "<u", ">u")


class InMemory(TrajectorySet):
    """Trajectories in arrays of this process."""

    def __init__(
        self,
        system: str,
        fields: Mapping[str, Array],
        spacing: Sequence[float],
        boundary: Sequence[Boundary],
        time_step: float,
        units: Mapping[str, str] | None,
        parameters: Sequence[Mapping[str, float]] | Mapping[str, Array | float] | None,
        given: Mapping[str, Array] | None,
        coordinates: Mapping[str, Coordinates] | None,
    ) -> None:
        """Describe arrays; see `TrajectorySet.from_arrays`."""
        units, given = {} if units is None else units, {} if given is None else given
        _check_forms(system, fields, given, spacing, boundary, units)
        self.system, self.fields = system, tuple(fields)
        self.units = tuple(units.get(name, "?") for name in fields)
        self._arrays = tuple(fields.values())
        self._coordinates = coordinates or {}
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
                f"{', '.join(f'{name} {each}' for name, each in shapes.items()) or 'none'}."
            )
        if unknown := [str(kind) for kind in boundary if kind not in ENDS]:
            raise DataError(f"{system}: expected boundaries {', '.join(ENDS)}, got {', '.join(unknown)}.")
        steps = [_number(step) for step in spacing]
        time = _number(time_step)
        if any(step is None or not 0 < step < math.inf for step in (*steps, time)):
            raise DataError(
                f"{system}: expected numbers as steps above 0 in space and time, got {tuple(spacing)} and {time_step!r}."
            )
        of_each = parameters_of_each(system, parameters, shape[0])
        missing = 3 - num_axes
        grid_z, grid_y, grid_x = (1,) * missing + shape[2:]
        step_z, step_y, step_x = (1.0,) * missing + tuple(float(step) for step in spacing)
        end_z, end_y, end_x = (NO_AXIS,) * missing + tuple(boundary)
        self.trajectories = tuple(
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
            for number, own in enumerate(of_each)
        )
        for name, array in given.items():
            if tuple(array.shape) not in (shape, (shape[0], *shape[2:])) or name in fields:
                raise DataError(
                    f"{system}: expected a given field of the shape {shape}, or without time, that is not among those "
                    f"to predict; got {name} {tuple(array.shape)}."
                )
        self.given, self._given = tuple(given), dict(given)
        self.given_in_time = frozenset(name for name, array in given.items() if len(array.shape) == len(shape))

    def _read_coordinates(self, axis: str, trajectories: Sequence[int]) -> Iterator[Coordinates | None]:
        yield from [self._coordinates.get(axis)] * len(trajectories)

    def _read_given(self, trajectory: int, name: str, start: int, stop: int, cells: Cells) -> np.ndarray:
        frames = (slice(start, stop),) if name in self.given_in_time else ()
        values = _on_the_host(self._given[name][(trajectory, *frames, *cells[5 - len(self._arrays[0].shape) :])])
        return values.reshape(-1, *(side.stop - side.start for side in cells))

    def _read_frames(self, trajectory: int, start: int, stop: int, cells: Cells) -> np.ndarray:
        index = (trajectory, slice(start, stop), *cells[5 - len(self._arrays[0].shape) :])
        frames = [_on_the_host(array[index]) for array in self._arrays]
        return np.stack(frames, axis=1).reshape(stop - start, len(frames), *(s.stop - s.start for s in cells))


def parameters_of_each(system: str, parameters: object, count: int) -> list[dict[str, float]]:
    """Return the parameters of each of ``count`` trajectories, see `TrajectorySet.from_arrays`.

    Raises:
        DataError: they are no numbers, or those of another number of trajectories.
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
    """Return a parameter of each trajectory."""
    if (alike := _number(values)) is not None and isinstance(name, str):
        return [alike] * count
    array = _on_the_host(values) if isinstance(values, list | tuple) or hasattr(values, "shape") else np.array(None)
    if array.shape != (count,) or array.dtype.kind not in "fiub" or not isinstance(name, str):
        raise DataError(
            f"{system}, parameters: expected a number for {name!r}, or one for each of {count} trajectories, got "
            f"{_what(values)}."
        )
    return [float(value) for value in array]


def _number(value: object) -> float | None:
    """Return a real number, also one in an array or tensor without axes, as such; None of anything else."""
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):
        value = value.item()
    return float(value) if isinstance(value, Real) else None


def _what(value: object) -> str:
    """Say what came: a text or number itself, of an array the shape, else the type."""
    if isinstance(value, str | complex):
        return repr(value)
    shape = f" of the shape {tuple(value.shape)}" if hasattr(value, "shape") else ""
    return f"{type(value).__name__}{shape}"


def _check_forms(system: str, fields: object, given: object, spacing: object, boundary: object, units: object) -> None:
    """Raise DataError if arrays in memory, or what is said of them, are of another kind than they must be."""
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
            f"{system}, units: {', '.join(unknown)} is none of the fields {', '.join(names)}; mend the name."
        )


def _names_of_arrays(system: str, what: str, arrays: object) -> list[str]:
    """Return the names of arrays; raise DataError if one does not hold real numbers, all of which are meant."""
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


def _on_the_host(values: Any) -> np.ndarray:  # noqa: ANN401 (this module does without PyTorch)
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        values = values.float() if str(values.dtype) == "torch.bfloat16" else values
    return np.asarray(values)
