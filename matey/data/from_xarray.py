"""Reads trajectories from an xarray Dataset, whatever it reads from: GRIB, Zarr in a cloud, several files, or memory."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from matey.config.description import Axis
from matey.data.coordinates import CALENDAR, GRID, UNEVEN_SPACE, UNEVEN_TIME, UNIT, even_step, role_of
from matey.data.trajectories import Boundary, Coordinates, DataError, TrajectorySet
from matey.mistakes import listed

Dataset = Any  # xarray may not be installed
Variable = Any


def from_xarray(
    dataset: Dataset,
    system: str,
    *,
    boundary: Mapping[str, Boundary],
    fields: Sequence[str] | None = None,
    given: Sequence[str] = (),
    parameters: Sequence[str] = (),
    axes: Mapping[str, Axis] | None = None,
    spacing: Mapping[str, float] | None = None,
    time_step: float | None = None,
) -> TrajectorySet:
    """Return the trajectories of a Dataset; values are read when they are used, and dates are read in seconds.

    Forecasts are labelled with the Dataset's own coordinates.

    Args:
        dataset: the ``xarray.Dataset``, or a ``DataArray`` that has a name.
        system: name of the PDE system.
        boundary: kind of boundary at the ends of each dimension of the grid.
        fields: names of the variables to predict; by default all of real numbers with a time axis and a grid axis.
        given: names of the variables that are known beforehand and not predicted.
        parameters: names of the variables that hold physical parameters, such as a viscosity: one number for each
            trajectory, or one for all.
        axes: kind of axis of each dimension whose name does not tell it: ``{"row": "y"}``.
        spacing: cell size along dimensions that have no coordinates, or whose coordinates are in another unit.
        time_step: time between two snapshots, where the dimension of time has no coordinates.

    Raises:
        DataError: a variable or dimension is of the wrong kind, or coordinates are not evenly spaced.
    """
    if not hasattr(dataset, "data_vars"):
        dataset = dataset.to_dataset()
    axes, spacing = {} if axes is None else axes, {} if spacing is None else spacing
    roles = {dim: axes.get(dim) or role_of(str(dim)) for dim in dataset.dims}
    time = next((dim for dim, role in roles.items() if role == "time"), None)
    names = [*fields] if fields is not None else _fields_of(dataset, roles)
    names = [name for name in names if name not in (*given, *parameters)]
    if time is None or not names:
        raise DataError(
            f"{system}: expected variables with a dimension of time, got the dimensions {listed(map(str, dataset.dims))}; name "
            "that of time in axes, such as {'day': 'time'}."
        )
    order = _order(system, dataset[names[0]].dims, roles)
    grid = [dim for dim in order if roles[dim] in GRID]
    for what, told in (("boundary", boundary), ("spacing", dict.fromkeys(grid) | {**spacing})):
        if not isinstance(told, Mapping) or {*told} != {*grid}:
            raise DataError(f"{system}, {what}: expected the dimensions {listed(grid)}, got {told}.")
    falling = [dim for dim in grid if (own := _places(dataset, dim)) and (np.diff(own.values) < 0).all()]
    dataset = dataset.isel(dict.fromkeys(falling, slice(None, None, -1)))
    places = {dim: _places(dataset, dim) for dim in (time, *grid)}
    steps = [
        spacing[dim] if dim in spacing else _step(system, dim, places[dim], "spacing", UNEVEN_SPACE) for dim in grid
    ]
    labels = {
        str(roles[dim]): replace(own, name=str(dim))
        for dim, own in places.items()
        if own and (np.diff(own.values) > 0).all()
    }
    if time_step is not None:
        labels.pop("time", None)
    data = TrajectorySet.from_arrays(
        system,
        {str(name): _Lazy.turned(system, dataset[name], order, roles) for name in names},
        spacing=steps,
        boundary=[boundary[dim] for dim in grid],
        time_step=_step(system, time, places[time], "time_step", UNEVEN_TIME) if time_step is None else time_step,
        units={str(name): _unit(dataset[name]) for name in names},
        parameters={name: _parameter(system, dataset[name], order, roles) for name in parameters},
        given={
            str(name): _Lazy.turned(
                system, dataset[name], [dim for dim in order if dim != time or time in dataset[name].dims], roles
            )
            for name in given
        },
        coordinates=labels,
    )
    if time_step is None and (own := places[time]):
        data.time_unit = "s" if own.unit == UNIT else own.unit
    of_grid = {"?" if dim in spacing else _unit(dataset[dim]) for dim in grid}
    data.length_unit = of_grid.pop() if len(of_grid) == 1 else "?"
    return data


def _fields_of(dataset: Dataset, roles: Mapping[Any, Axis | None]) -> list[Any]:
    """Return the variables of real numbers with a time axis and a grid axis, except bounds of coordinates."""
    coordinates = [dataset[name] for name in dataset.coords]
    bounds = {each.attrs.get("bounds", each.encoding.get("bounds")) for each in coordinates}
    found = []
    for name, variable in dataset.data_vars.items():
        has = {roles[dim] for dim in variable.dims}
        if variable.dtype.kind in "fiub" and "time" in has and has & {*GRID} and name not in bounds:
            found.append(name)
    return found


def _order(system: str, dims: Sequence[Any], roles: Mapping[Any, Axis | None]) -> list[Any]:
    """Return the dimensions of a variable as ``trajectory, time, z, y, x``."""
    ranks = ("trajectory", "time", *GRID)
    found = [roles[dim] for dim in dims]
    if {*found} - {*ranks} or len({*found}) < len(found):
        raise DataError(
            f"{system}: expected dimensions that are trajectory, time, z, y and x, each once, got {listed(map(str, dims))}; "
            "say in axes what each is, such as {'row': 'y'}, or select one of its places (dataset.isel)."
        )
    return sorted(dims, key=lambda dim: ranks.index(roles[dim]))


def _step(system: str, dim: Hashable, places: Coordinates | None, key: str, tolerance: float) -> float:
    """Return the spacing of the coordinates along a dimension."""
    if places is None:
        raise DataError(f"{system}, {dim}: expected numbers or dates as coordinates, found none; give {key}.")
    values = places.values - (places.values[0] if places.unit == UNIT else 0)  # else the tolerance grew from 1970 on
    return even_step(values, f"{system}, {dim}", tolerance, f"interpolate to even ones, or give {key}")


def _places(dataset: Dataset, dim: Hashable) -> Coordinates | None:
    """Return the coordinates along a dimension, dates and durations in seconds; None where they are neither, nor numbers."""
    if dim not in dataset.coords:
        return None
    values = dataset[dim].values
    if values.dtype.kind == "M":
        return Coordinates((values - np.datetime64(0, "s")) / np.timedelta64(1, "s"), UNIT, CALENDAR)
    if values.dtype.kind == "m":
        return Coordinates(values / np.timedelta64(1, "s"), "s")
    if values.dtype.kind == "O" and hasattr(values[0], "calendar"):
        import cftime  # late, as most data has no dates

        calendar = values[0].calendar
        return Coordinates(np.asarray(cftime.date2num(values, UNIT, calendar), np.float64), UNIT, calendar)
    return Coordinates(values.astype(np.float64), _unit(dataset[dim])) if values.dtype.kind in "fiu" else None


def _unit(variable: Variable) -> str:
    return str(variable.attrs.get("units", "?"))


def _parameter(system: str, variable: Variable, order: Sequence[Any], roles: Mapping[Any, Axis | None]) -> np.ndarray:
    """Return the values of a parameter, one for each trajectory or one for all."""
    of_each = [dim for dim in order if roles[dim] == "trajectory"]
    if variable.ndim and [*variable.dims] != of_each:
        numbers = f"one number for each {of_each[0]}" if of_each else "one number"
        raise DataError(
            f"{system}, parameters: expected {variable.name} to be {numbers}, got the dimensions "
            f"{listed(map(str, variable.dims))}; name it in given, or select one of its places (dataset.isel)."
        )
    return variable.values


class _Lazy:
    """A variable as an array ``(n, t, [[z,] y,] x)`` whose values are read when NumPy asks for them."""

    def __init__(self, variable: Variable) -> None:
        self._variable = variable
        self.shape: tuple[int, ...] = variable.shape
        self.dtype: np.dtype = variable.dtype

    @classmethod
    def turned(cls, system: str, variable: Variable, order: Sequence[Any], roles: Mapping[Any, Axis | None]) -> _Lazy:
        """Return a variable with its dimensions in the order given, and with one of trajectories."""
        if set(variable.dims) != set(order):
            raise DataError(
                f"{system}, {variable.name}: expected the dimensions {listed(map(str, order))}, as of the first field, got "
                f"{listed(map(str, variable.dims)) or 'none'}; leave it out of fields and given, or broadcast it."
            )
        if variable.dtype.kind not in "fiub":
            raise DataError(f"{system}: expected a variable of real numbers, got {variable.name} of {variable.dtype}.")
        turned = variable.transpose(*order)
        return cls(
            turned if any(roles[dim] == "trajectory" for dim in order) else turned.expand_dims("trajectory of all")
        )

    def __getitem__(self, index: Any) -> _Lazy:  # noqa: ANN401
        return _Lazy(self._variable[index])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:  # noqa: ANN401
        return np.asarray(self._variable.values, dtype)
