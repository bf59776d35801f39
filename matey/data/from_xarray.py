"""Trajectories of an xarray Dataset, read from wherever it reads: GRIB, Zarr in a cloud, several files as one, or memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from matey.config.places import Axis
from matey.data.axis_names import GRID, role_of
from matey.data.coordinates import UNEVEN_SPACE, UNEVEN_TIME, even_step
from matey.data.trajectories import DataError, TrajectorySet
from matey.data.trajectory import Boundary
from matey.mistakes import listed


def from_xarray(
    dataset: Any,  # noqa: ANN401 (xarray may not be installed)
    system: str,
    *,
    boundary: Mapping[str, Boundary],
    fields: Sequence[str] | None = None,
    given: Sequence[str] = (),
    axes: Mapping[str, Axis] | None = None,
    spacing: Mapping[str, float] | None = None,
    time_step: float | None = None,
) -> TrajectorySet:
    """Return the trajectories of a Dataset; values are read when they are used, and dates are read in seconds.

    Args:
        dataset: the ``xarray.Dataset``.
        system: name of the PDE system.
        boundary: kind of boundary at the ends of each dimension of the grid.
        fields: names of the variables to predict; by default all that have a time.
        given: names of the variables that are known and not to be predicted.
        axes: the axis that each dimension is, where its name does not tell: ``{"row": "y"}``.
        spacing: cell size along dimensions that have no coordinates.
        time_step: time between two snapshots, where the dimension of time has no coordinates.

    Raises:
        DataError: a variable or dimension is not what it is taken for, or coordinates are not evenly spaced.
    """
    roles = {dim: (axes or {}).get(dim) or role_of(str(dim)) for dim in dataset.dims}
    time = next((dim for dim, role in roles.items() if role == "time"), None)
    names = [*fields] if fields is not None else [name for name in dataset.data_vars if time in dataset[name].dims]
    names = [name for name in names if name not in given]
    if unknown := [name for name in (*names, *given) if name not in dataset]:
        raise DataError(f"{system}: expected variables {listed(unknown)}, the dataset has {listed(dataset.data_vars)}.")
    if time is None or not names:
        raise DataError(
            f"{system}: expected variables with a dimension of time, got the dimensions {listed(map(str, dataset.dims))}; name "
            "that of time in axes, such as {'day': 'time'}."
        )
    order = _order(system, dataset[names[0]].dims, roles)
    grid = [dim for dim in order if roles[dim] in GRID]
    for what, told in (("boundary", boundary), ("spacing", spacing or {})):
        if set(told) - set(grid) or (what == "boundary" and set(told) != set(grid)):
            raise DataError(f"{system}, {what}: expected the dimensions {listed(grid)}, got {listed(told) or 'none'}.")
    steps = {dim: (spacing or {}).get(dim) or _step(system, dataset, dim, "spacing", UNEVEN_SPACE) for dim in grid}
    dataset = dataset.isel({dim: slice(None, None, -1) for dim, step in steps.items() if step < 0})
    constant = [name for name in given if time not in dataset[name].dims]
    data = TrajectorySet.from_arrays(
        system,
        {str(name): _Lazy.turned(system, dataset[name], order, roles) for name in names},
        spacing=[abs(steps[dim]) for dim in grid],
        boundary=[boundary[dim] for dim in grid],
        time_step=time_step or _step(system, dataset, time, "time_step", UNEVEN_TIME),
        units={str(name): _unit(dataset[name]) for name in names},
        given={
            str(name): _Lazy.turned(
                system, dataset[name], [d for d in order if d != time or name not in constant], roles
            )
            for name in given
        },
    )
    data.time_unit = "?" if time not in dataset.coords else "s" if _is_date(dataset[time]) else _unit(dataset[time])
    of_grid = {_unit(dataset[dim]) if dim in dataset.coords else "?" for dim in grid}
    data.length_unit = of_grid.pop() if len(of_grid) == 1 else "?"
    return data


def _order(system: str, dims: Sequence[Any], roles: Mapping[Any, Axis | None]) -> list[Any]:
    """Return the dimensions of a variable as ``trajectory, time, z, y, x``."""
    unknown = [dim for dim in dims if roles[dim] in (None, "component")]
    found = [roles[dim] for dim in dims]
    if unknown or len({*found}) < len(found):
        raise DataError(
            f"{system}: expected dimensions that are trajectory, time, z, y and x, each once, got {listed(map(str, dims))}; "
            "say in axes what each is, such as {'row': 'y'}, or select one of its places (dataset.isel)."
        )
    ranks = ("trajectory", "time", *GRID)
    return sorted(dims, key=lambda dim: ranks.index(roles[dim]))


def _step(system: str, dataset: Any, dim: Any, key: str, tolerance: float) -> float:  # noqa: ANN401
    """Return the distance of the coordinates of a dimension, negative where they decrease."""
    if dim not in dataset.coords:
        raise DataError(f"{system}: the dimension {dim} has no coordinates; give {key}.")
    values = dataset[dim].values
    if _is_date(dataset[dim]):
        values = (values - values[0]) / np.timedelta64(1, "s")
    if values.dtype.kind not in "fiu":
        raise DataError(f"{system}, {dim}: expected numbers or dates as coordinates, got {values.dtype}; give {key}.")
    places = values.astype(np.float64)
    sign = -1.0 if key == "spacing" and places[-1] < places[0] else 1.0
    return sign * even_step(sign * places, f"{system}, {dim}", tolerance, f"interpolate to even ones, or give {key}")


def _is_date(coordinate: Any) -> bool:  # noqa: ANN401
    return coordinate.dtype.kind in "mM"


def _unit(variable: Any) -> str:  # noqa: ANN401
    return str(variable.attrs.get("units", "?"))


class _Lazy:
    """A variable as an array ``(n, t, [[z,] y,] x)`` whose values are read when NumPy asks for them."""

    def __init__(self, variable: Any) -> None:  # noqa: ANN401
        self._variable = variable
        self.shape: tuple[int, ...] = variable.shape
        self.dtype: np.dtype = variable.dtype

    @classmethod
    def turned(
        cls,
        system: str,
        variable: Any,  # noqa: ANN401
        order: Sequence[Any],
        roles: Mapping[Any, Axis | None],
    ) -> _Lazy:
        """Return a variable with its dimensions in an order, and one of trajectories."""
        if set(variable.dims) != set(order):
            raise DataError(
                f"{system}, {variable.name}: expected the dimensions {listed(map(str, order))}, as of the first field, got "
                f"{listed(map(str, variable.dims)) or 'none'}; leave it out of fields and given, or broadcast it."
            )
        turned = variable.transpose(*order)
        return cls(
            turned if any(roles[dim] == "trajectory" for dim in order) else turned.expand_dims("trajectory of all")
        )

    def __getitem__(self, index: Any) -> _Lazy:  # noqa: ANN401
        return _Lazy(self._variable.expand_dims("one") if index is None else self._variable[index])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:  # noqa: ANN401
        return np.asarray(self._variable.values, dtype)
