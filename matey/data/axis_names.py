"""Common names of axes and of their coordinates, and the kind of axis that each name stands for."""

from __future__ import annotations

from collections.abc import Iterable

from matey.config.description import Axis, GridAxis

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
MARK_BETWEEN = "_stag"
"""Suffix that WRF gives to the name of a staggered axis, which counts places between cells."""
BETWEEN = {*"s_w z_w depthw sw_ocean phalf zw_3d z_i zi z_aaf zf yq eta_v yv y_afa yf xq xi_u xu x_faa xf".split()}
"""Names of staggered axes in other programs."""
COMPONENTS = ("x", "y", "z", "r", "t")
"""Names of a vector's components where each is an array in a group named after the vector; t is the azimuth."""
MOST_COMPONENTS = 9  # those of a tensor


def role_of(name: str) -> Axis | None:
    """Return the kind of axis that the name of an axis, or of its coordinates, stands for; None where it does not tell."""
    return ROLES.get(axis_name(name).removesuffix(MARK_BETWEEN))


def axis_name(name: str) -> str:
    """Return the name of an axis, or the last part of the path of its coordinates, in lower case."""
    return name.rpartition("/")[2].lower()


def order_of(axes: Iterable[str]) -> tuple[int, int, int]:
    """Return the grid axes of an array, see `matey.data.trajectories.TrajectorySet.order`; those that it lacks come first."""
    found = [axis for axis in axes if axis in GRID]
    first, second, third = (GRID.index(axis) for axis in (*(axis for axis in GRID if axis not in found), *found))
    return first, second, third
