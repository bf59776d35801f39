"""The request for forecasts, and what a file of them says beside the values: axes, coordinates, units and origin.

known         start ... start + T - 1                              T frames of each trajectory, read from its file
forecast                             step 1, 2, ... num_steps      each one snapshot after the previous one
truth         as far as the trajectory reaches; the forecast may continue beyond it

Dimensions of a file are ``trajectory, time, [z,] y, x``, with a variable for each field; grid axes that have other names in
the data, such as ``lat`` and ``lon``, keep those. The conventions are those of
https://cfconventions.org, 1.11: units as UDUNITS writes them, omitted if the data set does not name them. Coordinates are
taken from the data's files if they have some and all trajectories have the same.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

import matey
from matey.checkpoints.trained import Trained
from matey.data import DataError, Trajectory, TrajectorySet
from matey.data.coordinates import count_from_a_date
from matey.data.trajectories import BadValuesError, Cells, Coordinates, check_storable
from matey.data.windows import num_starts
from matey.evaluate.forecasts.formats import PARAMETER, FormatError
from matey.evaluate.rollout import kept_names
from matey.mistakes import listed
from matey.model.transfer import weights_fingerprint

if TYPE_CHECKING:
    import xarray

SAME_STEP = 1e-4  # relative; times in a file need not be exact multiples of a step


@dataclass(frozen=True)
class ForecastRequest:
    """Forecasts from one frame of trajectories that share grid, spacing, boundaries and time step.

    Attributes:
        data: the data set.
        trajectories: numbers of the trajectories in the set, counted from 0.
        start: first frame that the model is given.
        num_frames: number of frames that the model is given, ``T``.
        num_steps: number of snapshots to forecast.
        lead: number of snapshots predicted from the same history, see `matey.evaluate.rollout`; if it equals
            ``num_steps``, every frame is predicted from the known frames.
        conserve: whether frames keep the totals of conserved quantities, see `matey.evaluate.rollout`.
    """

    data: TrajectorySet
    trajectories: tuple[int, ...]
    start: int
    num_frames: int
    num_steps: int
    lead: int
    conserve: bool = False

    def __post_init__(self) -> None:
        """Raise DataError if trajectories lack the frames, or differ too much to share one array."""
        for number in self.trajectories:
            if not 0 <= number < self.data.num_trajectories:
                raise DataError(
                    f"{self.data.system} has {self.data.num_trajectories} trajectories here, numbered from 0; got {number}."
                )
            about = self.data.trajectories[number]
            if self.start > (last_start := num_starts(about, self.num_frames, 0) - 1):
                raise DataError(
                    f"{about.label}: it has {about.num_frames} frames, so that {self.num_frames} of them can begin at 0 to "
                    f"{last_start}; got start {self.start}."
                )
        for number, what in product(self.trajectories, ("grid", "boundary", "spacing", "time_step")):
            own, first = (getattr(each, what) for each in (self.data.trajectories[number], self.first))
            is_measured = what in ("spacing", "time_step")
            if own != first and not (is_measured and np.allclose(own, first, rtol=SAME_STEP, atol=0)):
                raise DataError(
                    f"Trajectories that are forecast together need the same {what.replace('_', ' ')}, but number {number} has "
                    f"{own} and the first {first}; choose those that have the same with --trajectories."
                )

    @property
    def first(self) -> Trajectory:
        """The first trajectory; all share its grid and time step."""
        return self.data.trajectories[self.trajectories[0]]

    @property
    def last_known(self) -> int:
        """Number of the last frame that the model is given."""
        return self.start + self.num_frames - 1

    def times(self, frames: np.ndarray) -> np.ndarray:
        """Return the times of frames: the data's own, continued beyond its end, or else times since the trajectories began."""
        own = self.data.coordinates("time", self.trajectories)
        if own is None:
            return frames * self.first.time_step
        beyond = np.maximum(0, frames - (len(own.values) - 1))  # snapshots beyond the data's last one
        times: np.ndarray = own.values[frames - beyond] + beyond * self.first.time_step
        return times

    def own_clocks(self) -> list[Coordinates]:
        """Return the times of each trajectory by itself, if all have some, but none in common."""
        if self.data.coordinates("time", self.trajectories) is not None:
            return []
        each = [self.data.coordinates("time", [number]) for number in self.trajectories]
        known = [own for own in each if own is not None]
        return known if len(known) == len(each) else []

    @property
    def clock(self) -> str:
        """Words that follow "time" on the axis of a picture and explain it."""
        own = self.data.coordinates("time", self.trajectories)
        if own is None:
            return "since the trajectory began"
        return "as in the data" if own.unit in ("?", "1", "") else f"in {own.unit}"

    def num_true(self, trajectory: int) -> int:
        """Return how many of the forecast snapshots the trajectory itself has."""
        return min(self.num_steps, self.data.trajectories[trajectory].num_frames - 1 - self.last_known)

    def truth(self, trajectory: int, step: int, cells: Cells | None = None) -> np.ndarray | None:
        """Read the true frame ``(f, z, y, x)`` at a step, counted from 1, in a box of cells, by default in all.

        None beyond the end of the trajectory, and where a value is NaN or infinite: that must not end forecasts already made.
        """
        if step > self.num_true(trajectory):
            return None
        frame = self.last_known + step
        try:
            (only,) = self.data.read(trajectory, frame, frame + 1, cells)
        except BadValuesError:
            return None
        return np.asarray(only)

    def sources(self) -> list[object]:
        """Return marks of the inputs: sizes and times of files, and hashes of values in memory and in folders."""
        files = [source for source in self.data.inputs if source.exists()]
        told: list[object] = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
        if not files or any(file.is_dir() for file in files):  # a folder's size and time say nothing of a store
            for number in self.trajectories:  # the known frames, and the given fields up to the last step
                values = [self.data.read(number, self.start, self.last_known + 1)]
                if self.data.given:
                    end = min(self.data.trajectories[number].num_frames, self.last_known + self.num_steps + 1)
                    values.append(self.data.read_given(number, self.start, end))
                told += [hashlib.sha256(each.tobytes()).hexdigest() for each in values]
        return told


OTHER_TIMES = "The trajectories begin at different times, so that time counts from the beginning of each."
CONVENTIONS = "CF-1.11"
UNKNOWN = "?"
# CF counts seconds from a date, and a simulation has none.
REFERENCE = "since 2000-01-01 00:00:00"

Coordinate = tuple[tuple[str, ...], np.ndarray, Mapping[str, str]]
"""Names of a coordinate's dimensions, its values and its attributes."""


def contents_of(request: ForecastRequest, facts: Mapping[str, str]) -> xarray.Dataset:
    """Return the data set of a request: axes, coordinates and attributes, and fields of NaN that take no memory.

    Args:
        request: the request.
        facts: attributes of the whole file, such as the model and the command.

    Raises:
        DataError: a field has the name of a coordinate, or one that no file can hold.
        FormatError: xarray is not installed.
    """
    try:
        import xarray
    except ImportError:
        raise FormatError("xarray is not installed: pip install 'matey-pde[forecast]'.") from None
    data, grid = request.data, request.first.grid
    axes = ("z", "y", "x") if grid[0] > 1 else ("y", "x")
    coordinates, dims = {**_of_trajectories(request), **_of_times(request)}, ["trajectory", "time"]
    for axis in axes:
        (name,), values, of_axis = _of_cells(request, axis)
        dims.append(axis if name in coordinates else name)
        coordinates[dims[-1]] = (dims[-1],), values, of_axis
    parameters = {name for number in request.trajectories for name in data.trajectories[number].parameters}
    check_storable(data.system, (*data.fields, *sorted(parameters)))
    if clash := [name for name in data.fields if name in coordinates]:
        raise DataError(
            f"{data.system}: no field may have the name of a coordinate of forecasts, {listed(coordinates)}; got "
            f"{listed(clash)}: rename it in fields."
        )
    shape = len(request.trajectories), request.num_steps, *grid[-len(axes) :]
    nothing = np.broadcast_to(np.float32(np.nan), shape)
    about = {"coordinates": " ".join(name for name in coordinates if name not in dims)}
    fields = {
        name: (dims, nothing, {"long_name": name.replace("_", " "), **data.names_of(name), **about, **_units(unit)})
        for name, unit in zip(data.fields, data.units, strict=True)
    }
    whole = {
        "Conventions": CONVENTIONS,
        "title": f"Forecast of {data.system.replace('_', ' ')}",
        "system": data.system,
        **facts,
    }
    return xarray.Dataset(fields, coordinates, whole)


def _of_trajectories(request: ForecastRequest) -> dict[str, Coordinate]:
    dims = ("trajectory",)
    chosen = [request.data.trajectories[number] for number in request.trajectories]
    numbers = np.array(request.trajectories, dtype=np.int32)
    names = np.array([about.name for about in chosen])
    found: dict[str, Coordinate] = {
        "trajectory": (dims, numbers, {"long_name": "number of the trajectory in the data set"}),
        "trajectory_name": (dims, names, {"long_name": "name of the trajectory in its file"}),
    }
    for name in dict.fromkeys(name for about in chosen for name in about.parameters):
        values = np.array([about.parameters.get(name, np.nan) for about in chosen])
        found[f"{PARAMETER}{name}"] = dims, values, {"long_name": f"{name} of the simulation"}
    return found


def _of_times(request: ForecastRequest) -> dict[str, Coordinate]:
    dims, own = ("time",), request.data.coordinates("time", request.trajectories)
    steps = np.arange(1, request.num_steps + 1, dtype=np.int32)
    frames, unit = request.last_known + steps, request.data.time_unit
    if own is not None:
        unit, *since = re.split(r"\s+since\s", own.unit, maxsplit=1, flags=re.IGNORECASE)
        is_date = count_from_a_date(own.unit, own.calendar)
        of_time = {"long_name": "time as in the data", **_units(own.unit if is_date else unit)}
        if is_date:
            of_time |= {"standard_name": "time", "calendar": own.calendar or "standard"}
        elif since:  # such as "the start of a simulation", which other programs try to read as a date
            of_time["comment"] = f"In the data: {own.unit}."
    else:
        clocks = request.own_clocks()
        units = {re.split(r"\s+since\s", each.unit, maxsplit=1, flags=re.IGNORECASE)[0] for each in clocks}
        unit = units.pop() if len(units) == 1 else unit
        of_time = {"long_name": "time since the trajectory began", **_units(unit)}
        if clocks:
            of_time["comment"] = OTHER_TIMES
        elif unit == "s":
            of_time |= {"units": f"s {REFERENCE}", "standard_name": "time", "calendar": "standard"}
            of_time["units_metadata"] = "leap_seconds: none"
            of_time["comment"] = "The date is a reference without meaning: the simulation has none."
    period = {"long_name": "time since the last frame that the model was given", **_units(unit)}
    if unit == "s":
        period["standard_name"] = "forecast_period"
    return {
        "time": (dims, request.times(frames), of_time),
        "forecast_period": (dims, steps * request.first.time_step, period),
        "step": (dims, steps, {"long_name": "snapshots since the last frame that the model was given"}),
    }


def _of_cells(request: ForecastRequest, axis: str) -> Coordinate:
    place = "zyx".index(axis)
    about, own = {"boundary": str(request.first.boundary[place])}, request.data.coordinates(axis, request.trajectories)
    if own is not None:
        name = own.name if own.name.isidentifier() else axis
        return (name,), own.values, {"long_name": f"{axis} as in the data", **about, **_units(own.unit)}
    spacing, size = request.first.spacing[place], request.first.grid[place]
    about["long_name"] = f"distance of the centre of the cell from the lower end of the {axis} axis"
    return (axis,), (np.arange(size) + 0.5) * spacing, {**about, **_units(request.data.length_unit)}


def _units(unit: str) -> dict[str, str]:
    return {} if unit == UNKNOWN else {"units": unit}


METHOD = "MATEY, https://arxiv.org/abs/2412.20601"


def origin_of(trained: Trained, request: ForecastRequest, command: str | None) -> dict[str, str]:
    """Return the attributes of a file of forecasts that describe its origin.

    Args:
        trained: the model.
        request: the request.
        command: command that makes the file; None if it is made from Python.
    """
    model = trained.model
    kind = "at once" if request.lead >= request.num_steps else f"in steps of {request.lead} snapshots"
    kept = kept_names(request.data, request.trajectories[0]) if request.conserve else []
    kind += f", with the totals kept of {', '.join(kept)}" if kept else ""
    facts = {
        "source": f"matey {matey.__version__}, model {trained.name}",
        "references": METHOD,
        "history": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}: {command or 'matey.forecast'}",
        "forecast": f"{request.num_frames} frames from frame {request.start} on are known; predicted {kind}",
        "model_weights": f"{weights_fingerprint(model)}, {model.num_parameters()} parameters",
    }
    return {**facts, **({"model_card": trained.card} if trained.card else {})}
