"""Names of axes, the coordinates along them, and the spacing of cells and frames that follows from these."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from matey.config.description import Axis, GridAxis
from matey.mistakes import DataError

_NAMES: dict[Axis, str] = {
    "trajectory": "trajectory trajectories sample samples member ensemble run runs realization case seed batch n",
    "time": "time times t t-coordinate timestep step snapshot snapshots frame frames xtime ocean_time sim_time valid_time "
    "time_counter t_array",
    "z": "z zc z-coordinate lev level height depth plev altitude k nz nk bottom_top zh s_rho pressure_level isobaricinhpa z_t "
    "deptht st_ocean pfull zt zu_3d z_l zl z_aac s_w z_w depthw sw_ocean phalf zm zw_3d z_i zi z_aaf zf",
    "y": "y yc y-coordinate lat latitude j ny nj south_north rlat yh eta_rho nlat yt_ocean grid_yt yt y_aca eta_v yu_ocean yq "
    "yv ym y_afa yf",
    "x": "x xc x-coordinate lon longitude i nx ni west_east rlon xh xi_rho nlon xt_ocean grid_xt xt x_caa xi_u xu_ocean xq xu "
    "xm x_faa xf",
    "component": "component components comp channel channels c vector dim variable",
}
ROLES: dict[str, Axis] = {name: axis for axis, names in _NAMES.items() for name in names.split()}
GRID: tuple[GridAxis, ...] = ("z", "y", "x")
COUNTERS = {"step", "snapshot", "snapshots", "frame", "frames"}
"""Names of arrays along time that count snapshots; these are taken as times only where the file has no others."""
NO_TIMES = {"timestep"}
"""Names that a time axis may have, but not the array of its times: such an array holds step sizes or step numbers."""
_OF_MANY_USES = {"i", "j", "k", "n", "c", "height", "depth", "dim", "variable", "case"}  # names with several meanings
MOST_COMPONENTS = 9  # those of a tensor


def role_of(name: str) -> Axis | None:
    """Return the kind of axis that the name of an axis, or of its coordinates, stands for; None where it does not tell."""
    return ROLES.get(axis_name(name))


def axis_name(name: str) -> str:
    """Return the name of an axis, or the last part of the path of its coordinates, in lower case."""
    return name.rpartition("/")[2].lower()


def axes_by_name(names: Sequence[str], axes: Sequence[Axis]) -> list[Axis] | None:
    """Return axes in the order that their names imply if it differs from the described order, else None.

    Args:
        names: names of an array's axes in its file.
        axes: kinds of these axes as described.
    """
    roles = {name: role_of(name) for name in names if name.lower() not in _OF_MANY_USES}
    told = [roles.get(name) or axis for name, axis in zip(names, axes, strict=True)]
    return told if told != list(axes) and sorted(told) == sorted(axes) else None


def order_of(axes: Iterable[str]) -> tuple[int, int, int]:
    """Return the grid axes of an array, see `matey.data.trajectories.TrajectorySet.order`; those that it lacks come first."""
    found = [axis for axis in axes if axis in GRID]
    first, second, third = (GRID.index(axis) for axis in (*(axis for axis in GRID if axis not in found), *found))
    return first, second, third


UNEVEN_SPACE, UNEVEN_TIME = 1e-3, 0.1  # shares of the mean spacing; solvers save at the first step after each due time


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
