"""Names of axes, coordinates and their spacing; numbers and dates in names of files, and the date that times count from."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from os.path import commonprefix

import numpy as np

from matey.config.description import DATE_DIGITS, NUMBER, Axis, GridAxis
from matey.data.stored import StoredArray
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


UNIT, CALENDAR = "seconds since 1970-01-01", "proleptic_gregorian"
_NUMBER = re.compile(r"\d+\.?\d*([eE][+-]?\d+)?")
_USUAL = ("standard", "gregorian", "proleptic_gregorian")  # the same calendar from 1583 on


def counted_from(times: Sequence[float], stored: StoredArray, other: StoredArray) -> tuple[float, ...] | None:
    """Convert times to the unit and the starting date of another array, such as ``days since 2000-02-01``.

    Args:
        times: the times.
        stored: the array that the times come from.
        other: the array that sets the new unit and starting date.

    Returns:
        The converted times; None where a unit cannot be converted, or one counts in another calendar.
    """
    ours, theirs = ((each.calendar or "standard").lower() for each in (stored, other))
    if ours != theirs and not {ours, theirs} <= {*_USUAL}:
        return None
    if stored.unit == other.unit:
        return tuple(times)
    import cftime  # late, as most data has no dates

    try:
        dates = cftime.num2date(times, stored.unit, theirs)
        return tuple(np.asarray(cftime.date2num(dates, other.unit, theirs), float).tolist())
    except (OverflowError, ValueError):
        return None


def count_from_a_date(unit: str, calendar: str) -> bool:
    """Whether a unit such as ``days since 2000-01-01`` starts at a valid date of a known calendar, as other programs need."""
    import cftime

    try:
        cftime.num2date(0, unit, (calendar or "standard").lower())
    except (OverflowError, ValueError):
        return False
    return True


def in_order(names: Sequence[str], dates: str | None = None) -> list[str]:
    """Sort names by the number in which they differ; where there are several, by each of these from left to right.

    Where ``dates`` is a form of date, they are sorted by the date in each.
    """
    if dates:
        return sorted(names, key=lambda name: date_in(name, dates))
    numbers = numbers_in(names)
    if numbers is not None:
        return [name for _, name in sorted(zip(numbers, names, strict=True))]
    return sorted(
        names, key=lambda name: [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]
    )


def numbers_in(names: Sequence[str]) -> list[float] | None:
    """Return the number that tells each name from the others; None where they differ in more than one number, or in words.

    >>> numbers_in(["run_3/t_0.5.npy", "run_3/t_0.25.npy"])
    [0.5, 0.25]
    """
    if len(names) < 2:
        return [0.0] * len(names)
    head = re.sub(r"(\d[\d.]*[eE][+-]?)?[\d.]*$", "", commonprefix(list(names)))
    tail = re.sub(r"^[\d.]*", "", commonprefix([name[::-1] for name in names])[::-1])
    rest = [name[len(head) : len(name) - len(tail)].strip(".") for name in names]
    if not all(map(_NUMBER.fullmatch, rest)):
        return None
    return [float(text) for text in rest]


def date_in(name: str, form: str) -> float:
    """Return the seconds from 1970 to the last date in a name, of the form that `datetime.strptime` reads.

    Raises:
        DataError: the name has no valid date.

    >>> date_in("out_2020-02-28_12.nc", "%Y-%m-%d_%H")
    1582891200.0
    """
    try:
        return datetime.strptime(re.findall(date_pattern(form), name)[-1], form).replace(tzinfo=UTC).timestamp()
    except (IndexError, ValueError):
        raise DataError(
            f"{name}: expected a date of the form {form} in its name; correct date_in_name of time_step."
        ) from None


def number_in(name: str, form: str) -> float | None:
    """Return the number in a name or path, None where there is none.

    Args:
        name: the name; the last match in it counts.
        form: text around the number, see `matey.config.description.NumberForm`; no letter may stand right before or after it.

    >>> [number_in("flow/Re1e3_nu_0.01.h5", form) for form in ("Re{}", "nu_{}")]
    [1000.0, 0.01]
    """
    before, after = map(re.escape, form.split(NUMBER))
    start = r"(?<![A-Za-z])" if before[:1].isalpha() else "" if before else r"(?<![\d.])"
    end = r"(?![A-Za-z])" if after[-1:].isalpha() else ""
    found = re.findall(rf"{start}{before}([-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?){after}{end}", name)
    return float(found[-1]) if found else None


def date_pattern(form: str) -> str:
    """Return the regular expression of dates of a form."""
    parts = re.split("(%.)", form)
    digits = (rf"\d{{{DATE_DIGITS[part]}}}" if number % 2 else re.escape(part) for number, part in enumerate(parts))
    return rf"(?<!\d){''.join(digits)}(?!\d)"
