"""Trajectories of one PDE system, which every reader yields: described up front and read a few frames at a time.

The file of a format (``pdebench``, ...) fills in the descriptions and ``_read_frames``; the checks that all formats
share are here. Axis legend: ``t`` time, ``f`` field, ``z y x`` grid axes; two-dimensional data has ``z = 1``.
"""

from __future__ import annotations

import math
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from matey.config.description import PartName
from matey.fields import LARGEST
from matey.mistakes import DataError as DataError
from matey.mistakes import listed, one_line, printable

Boundary = Literal["periodic", "open", "wall", "no_flux", "mixed", "none"]
"""Kind of boundary at both ends of an axis; ``mixed`` where they differ, ``none`` for an axis that the data lacks."""

NO_AXIS: Boundary = "none"

Part = PartName
"""Part of a split that a trajectory is in."""

PARTS: tuple[Part, ...] = get_args(Part)


class BadValuesError(DataError):
    """Data that was read without error, and holds NaN, infinity or values that are too large."""


@dataclass(frozen=True)
class Trajectory:
    """One run of a solver as its file describes it; holds no field values.

    Attributes:
        source: file of the trajectory.
        name: name inside that file, such as ``0023``.
        num_frames: number of snapshots.
        grid: number of cells along ``z, y, x``.
        spacing: cell size along ``z, y, x`` in the units of the data set (1 along a missing axis).
        boundary: kind of boundary at the ends of ``z, y, x``.
        time_step: time between two snapshots in the units of the data set.
        parameters: numbers that set the run apart, such as ``dam_radius`` or ``seed``.
        split: part of a split that its publisher, or a cut in time, assigned it to; None where the files leave that open.
        conserved: fields whose sum over the domain is conserved by the equations and boundaries.
    """

    source: Path
    name: str
    num_frames: int
    grid: tuple[int, int, int]
    spacing: tuple[float, float, float]
    boundary: tuple[Boundary, Boundary, Boundary]
    time_step: float
    parameters: dict[str, float] = field(default_factory=dict)
    split: Part | None = None
    conserved: tuple[str, ...] = ()

    @property
    def periodic(self) -> tuple[bool, bool, bool]:
        """Whether the domain wraps around along ``z, y, x``."""
        z, y, x = (kind == "periodic" for kind in self.boundary)
        return z, y, x

    @property
    def cells(self) -> tuple[slice, slice, slice]:
        """The box of all cells."""
        z, y, x = (slice(0, size) for size in self.grid)
        return z, y, x

    @property
    def label(self) -> str:
        """File and name, as a message or a plot cites it."""
        return f"{self.source}, trajectory {self.name}"


@dataclass(frozen=True)
class Coordinates:
    """Coordinates along an axis as a file has them.

    Attributes:
        values: time of each frame that is used, or centre of each cell; they increase.
        unit: unit as the file gives it, such as ``m`` or ``hours since 2000-01-01``; ``?`` where it gives none.
        calendar: calendar of such dates, empty where the file names none.
        name: name of the axis in the file, such as ``lat``; empty where it has no other name than ours.
    """

    values: np.ndarray
    unit: str
    calendar: str = ""
    name: str = ""

    def agrees_with(self, other: Coordinates) -> bool:
        """Whether both are the same over the length of the shorter one."""
        alike = (self.unit, self.calendar) == (other.unit, other.calendar)
        both = min(len(self.values), len(other.values))
        return alike and np.array_equal(self.values[:both], other.values[:both])


def common_coordinates(of_each: Iterable[Coordinates | None]) -> Coordinates | None:
    """Return the longest of several coordinates that agree; None where one is missing or they disagree."""
    longest: Coordinates | None = None
    for own in of_each:
        if own is None or not (longest is None or longest.agrees_with(own)):
            return None
        longest = own if longest is None or len(own.values) > len(longest.values) else longest
    return longest


def check_finite(
    about: Trajectory, names: Sequence[str], frames: np.ndarray, start: int, first: Sequence[int], gaps: np.ndarray
) -> None:
    """Raise BadValuesError unless frames ``(t, f, z, y, x)`` are NaN in ``gaps``, and finite and not too large elsewhere.

    Args:
        about: the trajectory.
        names: names of the fields.
        frames: the frames.
        start: number of the first frame.
        first: first cell of the frames along ``z, y, x``.
        gaps: mask ``(1, f, z, y, x)`` of the cells that hold no data in any frame.
    """
    wrong = np.where(gaps, ~np.isnan(frames), ~(np.abs(frames) <= LARGEST))
    if wrong.any():
        frame, index, *cell = (int(axis[0]) for axis in np.nonzero(wrong))
        place = tuple(before + number for before, number in zip(first, cell, strict=True))
        value = frames[frame, index, *cell]
        if np.isnan(value):
            what = "has no value in any cell, first in" if np.isnan(frames[:, index]).all() else "is nan in"
            why = "cells without data are NaN in all frames of a trajectory, and some cells have to hold data"
        else:
            what = f"is {value} in"
            why = f"values may be up to {LARGEST:g}; write larger units, such as scale: 1e-20 beside the array in a description"
        raise BadValuesError(
            f"{about.label}: expected finite values, but field {names[index]!r} {what} frame {start + frame} "
            f"at (z, y, x) = {place}: {why}. Else repair or remove this trajectory; training can leave out such windows "
            "(data.bad_values: skip)."
        )


ALL_FIELDS = "all"
"""Name of the mean over the fields, in records of evaluations."""


def check_printable(source: Path, names: Iterable[str]) -> None:
    """Raise DataError if a name in a file holds control characters, which tables would send to the terminal."""
    for name in names:
        if printable(name) != name:
            raise DataError(f"{source}: the name {name!r} holds control characters; rename it.")


def check_storable(system: str, names: Iterable[str]) -> None:
    """Raise DataError if fields or parameters have names that stand for a place inside of an HDF5, netCDF or Zarr file."""
    if wrong := [name for name in names if "/" in name or name in (".", "..")]:
        raise DataError(
            f"{system}: files of forecasts and The Well's layout take a name with / for a group, and . and .. for places; "
            f"got {listed(wrong)}: rename it."
        )


# A thread that reads ahead and the one that validates share open files, and netCDF's library is not thread-safe.
_reading = threading.Lock()

Cells = tuple[slice, slice, slice]
"""A box of cells: its first cell and the one after its last along each of ``z, y, x``."""

Array = Any
"""A NumPy array or a PyTorch tensor."""

_ENDS = tuple(kind for kind in get_args(Boundary) if kind != NO_AXIS)

# Beginnings of the names of real types in NumPy and PyTorch.
_REAL = ("bool", "float", "bfloat", "int", "uint", "<f", ">f", "<i", ">i", "<u", ">u")


class TrajectorySet(ABC):
    """Trajectories of one system with the same fields; grids and lengths may differ from one to the next.

    Holds descriptions and no open files, so it can be pickled or forked; each process opens files on its first read.

    Attributes:
        system: name of the PDE system, such as ``shallow_water``.
        fields: names along axis ``f``.
        units: unit of each field; ``1`` where the data set is dimensionless, ``?`` where the unit is not known.
        trajectories: one description per trajectory, in a fixed order.
        length_unit: unit of coordinates and spacing; ``1`` and ``?`` as in ``units``.
        time_unit: unit of times and time steps; ``1`` and ``?`` as in ``units``.
        given: names of fields that are known beforehand and not predicted, such as coefficients, geometry or forcing.
        given_in_time: given fields that vary in time, those in ``left_out`` among them.
        left_out: given fields that are not read, see `with_given`.
        made_of: the sets that this one is made of; empty for a set that reads files or arrays itself.
    """

    system: str
    fields: tuple[str, ...]
    units: tuple[str, ...]
    trajectories: tuple[Trajectory, ...]
    length_unit: str = "?"
    time_unit: str = "?"
    given: tuple[str, ...] = ()
    given_in_time: frozenset[str] = frozenset()
    left_out: tuple[str, ...] = ()
    made_of: tuple[TrajectorySet, ...] = ()
    _order: tuple[int, int, int] = (0, 1, 2)  # of all trajectories, see `order`

    @property
    def num_trajectories(self) -> int:
        """Number of trajectories."""
        return len(self.trajectories)

    @property
    def sources(self) -> tuple[Path, ...]:
        """The files of the set, each once, in order."""
        return tuple(dict.fromkeys(trajectory.source for trajectory in self.trajectories))

    @property
    def varying(self) -> tuple[str, ...]:
        """The given fields that vary in time."""
        return tuple(name for name in self.given if name in self.given_in_time)

    @property
    def inputs(self) -> tuple[Path, ...]:
        """All files that values and parameters come from, each once: those of the set, of given fields and tables."""
        return tuple(dict.fromkeys(path for part in self.made_of for path in part.inputs)) or self.sources

    @property
    def told(self) -> str:
        """The description that a user wrote for the files, as text; empty where the files describe themselves."""
        return "\n".join(part.told for part in self.made_of)

    def names_of(self, field: str) -> dict[str, str]:
        """Return a field's ``long_name`` and ``standard_name`` by these keys, as far as its file has them."""
        return self.made_of[0].names_of(field) if self.made_of else {}

    def read(self, trajectory: int, start: int, stop: int, cells: Cells | None = None) -> np.ndarray:
        """Read frames ``start`` to ``stop - 1`` of one trajectory, and no others, from its file.

        Args:
            trajectory: index of the trajectory.
            start: first frame.
            stop: one after the last frame.
            cells: box of cells to read; by default all.

        Returns:
            float32 of shape ``(t, f, z, y, x)`` in the units of the data set; NaN in cells that hold no data in any frame.

        Raises:
            DataError: the file is gone or corrupt.
            BadValuesError: a value is infinite, or NaN in a cell that holds data in other frames.
        """
        about = self.trajectories[trajectory]
        assert 0 <= start < stop <= about.num_frames, f"frames {start}:{stop} of {about.num_frames} in {about.label}"
        cells = cells or about.cells
        with _reading:
            frames = np.ascontiguousarray(self._read_frames(trajectory, start, stop, cells), dtype=np.float32)
        expected = (stop - start, len(self.fields), *(side.stop - side.start for side in cells))
        if frames.shape != expected:
            raise DataError(
                f"{about.label} was changed while it was read: expected frames of shape {expected}, got {frames.shape}; start "
                "again, or correct its reader if nothing wrote into it."
            )
        self._check_values(self._read_frames, trajectory, self.fields, frames, start, cells)
        return frames

    def read_given(self, trajectory: int, start: int, stop: int, cells: Cells | None = None) -> np.ndarray:
        """Read the given fields in frames ``start`` to ``stop - 1``, see `read`; a single frame if all are constant in time.

        Returns:
            float32 of shape ``(t or 1, f, z, y, x)`` in the units of the data set, with the fields ``given``.

        Raises:
            DataError: the file is gone or corrupt.
            BadValuesError: see `read`.
        """
        about = self.trajectories[trajectory]
        assert 0 <= start < stop <= about.num_frames, f"frames {start}:{stop} of {about.num_frames} in {about.label}"
        cells = cells or about.cells
        with _reading:
            frames = self._given_frames(trajectory, start, stop, cells)
        self._check_values(self._given_frames, trajectory, self.given, frames, start, cells)
        return frames

    def _given_frames(self, trajectory: int, start: int, stop: int, cells: Cells) -> np.ndarray:
        shape = (stop - start if self.varying else 1, *(side.stop - side.start for side in cells))
        asked = start, stop, cells
        each = [np.broadcast_to(self._read_given(trajectory, name, *asked), shape) for name in self.given]
        return np.ascontiguousarray(np.stack(each, axis=1), dtype=np.float32)

    def _check_values(
        self,
        read: Callable[[int, int, int, Cells], np.ndarray],
        trajectory: int,
        names: tuple[str, ...],
        frames: np.ndarray,
        start: int,
        cells: Cells,
    ) -> None:
        """Raise BadValuesError if frames hold bad values; NaN in the same cells of the first and last frame marks a gap."""
        if frames.min() >= -LARGEST and frames.max() <= LARGEST:  # false where NaN is among them
            return
        about, sides = self.trajectories[trajectory], [(side.start, side.stop) for side in cells]
        of_boxes: dict[object, dict[int, np.ndarray]] = self.__dict__.setdefault("_gaps", {})
        known = of_boxes.setdefault((names, *sides), {})
        if trajectory not in known:
            with _reading:
                ends = [np.isnan(read(trajectory, at, at + 1, cells)) for at in (0, about.num_frames - 1)]
            gaps = ends[0] & ends[1]
            if cells == about.cells:
                gaps &= ~gaps.all(axis=(2, 3, 4), keepdims=True)  # a field needs some cell with data
            last = next(reversed(known.values()), gaps)  # trajectories mostly share one mask, which is kept once
            known[trajectory] = last if np.array_equal(last, gaps) else gaps
        check_finite(about, names, frames, start, [side.start for side in cells], known[trajectory])

    def order(self, trajectory: int) -> tuple[int, int, int]:
        """Return the axes ``z, y, x``, as 0, 1 and 2, from the slowest to the fastest of the file."""
        return self._order

    def with_given(self, names: Collection[str]) -> TrajectorySet:
        """Return the set with only the given fields in ``names``; others are not read."""
        chosen = copy(self)
        chosen.given = tuple(name for name in self.given if name in names)
        chosen.left_out = (*self.left_out, *(name for name in self.given if name not in names))
        return chosen

    def coordinates(self, axis: str, trajectories: Sequence[int]) -> Coordinates | None:
        """Read the coordinates along ``time`` or a grid axis of the data; None where files differ or have none.

        Times go as far as the longest of the trajectories.
        """
        with _reading:
            return common_coordinates(self._read_coordinates(axis, trajectories))

    @abstractmethod
    def _read_frames(self, trajectory: int, start: int, stop: int, cells: Cells) -> np.ndarray:
        """Read frames of a box of cells in the shape that ``read`` promises; ``read`` checks bounds, shape and values."""

    def _read_coordinates(self, axis: str, trajectories: Sequence[int]) -> Iterator[Coordinates | None]:
        """Yield the coordinates of each trajectory, None where its file has none."""
        yield from [None] * len(trajectories)

    def _read_given(self, trajectory: int, name: str, start: int, stop: int, cells: Cells) -> np.ndarray:
        """Read a given field in a box of cells, ``(t, z, y, x)`` or a shape that broadcasts to it."""
        raise NotImplementedError(f"{type(self).__name__} names given fields, {name!r}, and does not read them")

    @staticmethod
    def from_arrays(
        system: str,
        fields: Mapping[str, Array],
        *,
        spacing: Sequence[float],
        boundary: Sequence[Boundary],
        time_step: float = 1.0,
        units: Mapping[str, str] | None = None,
        parameters: Mapping[str, Array | float] | None = None,
        given: Mapping[str, Array] | None = None,
        coordinates: Mapping[str, Coordinates] | None = None,
    ) -> TrajectorySet:
        """Return a set of trajectories that lie in memory, such as those of a solver in the same program.

        Nothing is copied: later changes of the arrays are seen. Arrays on a GPU are copied from it frame by frame. Sets of
        different lengths or grids are joined by `JoinedTrajectories`.

        Args:
            system: name of the PDE system.
            fields: an array or tensor ``(n, t, [[z,] y,] x)`` of real numbers for each field, ``n`` counting trajectories.
            spacing: cell size along each grid axis, in the order of the arrays.
            boundary: kind of boundary at the ends of each grid axis.
            time_step: time between two snapshots.
            units: unit of a field by its name.
            parameters: numbers that set trajectories apart: an array ``(n,)`` or a number for each name. NaN stands for one
                that is not known.
            given: an array for each field that is known beforehand and not predicted: ``(n, t, [[z,] y,] x)`` where it varies
                in time, ``(n, [[z,] y,] x)`` where not.
            coordinates: coordinates of frames or cells along ``time``, ``z``, ``y`` or ``x``, which forecasts get as well; by
                default they start at the lower end of each axis.

        Raises:
            DataError: arrays are not of this shape, or differ in shape.
        """
        units, given, coordinates, parameters = units or {}, given or {}, coordinates or {}, parameters or {}
        num_axes = len(spacing)
        if (
            not 1 <= num_axes <= 3
            or len(boundary) != num_axes
            or not all(0 < step < np.inf for step in (*spacing, time_step))
        ):
            raise DataError(
                f"{system}: expected steps above 0 in time and along one to three grid axes, and a boundary for each of these, "
                f"got {time_step}, {tuple(spacing)} and {tuple(boundary)}."
            )
        if unknown := [str(kind) for kind in boundary if kind not in _ENDS]:
            raise DataError(f"{system}: expected boundaries {', '.join(_ENDS)}, got {', '.join(unknown)}.")
        _check_arrays(system, fields, given, num_axes)
        count, *sizes = next(iter(fields.values())).shape
        for axis, size in zip(("time", *"zyx"[3 - num_axes :]), sizes, strict=True):
            if (own := coordinates.get(axis)) and not (len(own.values) == size and (np.diff(own.values) > 0).all()):
                raise DataError(f"{system}, coordinates: expected {size} numbers along {axis} that increase.")
        missing = 3 - num_axes
        grid_z, grid_y, grid_x = (1,) * missing + tuple(sizes[1:])
        step_z, step_y, step_x = (1.0,) * missing + tuple(float(step) for step in spacing)
        end_z, end_y, end_x = (NO_AXIS,) * missing + tuple(boundary)
        abouts = tuple(
            Trajectory(
                source=Path("memory"),
                name=str(number),
                num_frames=sizes[0],
                grid=(grid_z, grid_y, grid_x),
                spacing=(step_z, step_y, step_x),
                boundary=(end_z, end_y, end_x),
                time_step=float(time_step),
                parameters=own,
            )
            for number, own in enumerate(_parameters_of_each(system, parameters, count))
        )
        return _InMemory(system, fields, given, abouts, units, coordinates)


class _InMemory(TrajectorySet):
    """Trajectories in arrays of this process."""

    def __init__(
        self,
        system: str,
        fields: Mapping[str, Array],
        given: Mapping[str, Array],
        trajectories: tuple[Trajectory, ...],
        units: Mapping[str, str],
        coordinates: Mapping[str, Coordinates],
    ) -> None:
        self.system, self.fields, self.trajectories = system, tuple(fields), trajectories
        self.units = tuple(units.get(name, "?") for name in fields)
        self._arrays, self._coordinates = tuple(fields.values()), coordinates
        self.given, self._given = tuple(given), dict(given)
        self._num_axes = len(self._arrays[0].shape)
        self.given_in_time = frozenset(name for name, array in given.items() if len(array.shape) == self._num_axes)

    def _read_coordinates(self, axis: str, trajectories: Sequence[int]) -> Iterator[Coordinates | None]:
        yield from [self._coordinates.get(axis)] * len(trajectories)

    def _read_given(self, trajectory: int, name: str, start: int, stop: int, cells: Cells) -> np.ndarray:
        frames = (slice(start, stop),) if name in self.given_in_time else ()
        values = on_the_host(self._given[name][(trajectory, *frames, *cells[5 - self._num_axes :])])
        return values.reshape(-1, *(side.stop - side.start for side in cells))

    def _read_frames(self, trajectory: int, start: int, stop: int, cells: Cells) -> np.ndarray:
        index = (trajectory, slice(start, stop), *cells[5 - self._num_axes :])
        frames = [on_the_host(array[index]) for array in self._arrays]
        return np.stack(frames, axis=1).reshape(stop - start, len(frames), *(s.stop - s.start for s in cells))


def _check_arrays(system: str, fields: Mapping[str, Array], given: Mapping[str, Array], num_axes: int) -> None:
    """Raise DataError if arrays in memory do not hold real numbers, or have the wrong shape."""
    for name, array in (*fields.items(), *given.items()):
        dtype = str(getattr(array, "dtype", "")).removeprefix("torch.")
        if not dtype.startswith(_REAL) or np.ma.isMaskedArray(array):
            raise DataError(
                f"{system}: expected an array of real numbers without a mask for {name}, got {dtype or type(array).__name__}; "
                "put NaN into cells without data, array.filled(numpy.nan)."
            )
    shapes = {name: tuple(array.shape) for name, array in fields.items()}
    shape = next(iter(shapes.values()), ())
    if len(shape) != num_axes + 2 or 0 in shape or len(set(shapes.values())) > 1:
        raise DataError(
            f"{system}: expected arrays (n, t, {', '.join('zyx'[3 - num_axes :])}) of one shape, to go with {num_axes} cell "
            f"sizes, got {', '.join(f'{name} {each}' for name, each in shapes.items()) or 'none'}; array[None] has the axis n "
            "for a single trajectory."
        )
    for name, array in given.items():
        if tuple(array.shape) not in (shape, (shape[0], *shape[2:])) or name in fields:
            raise DataError(
                f"{system}: expected a given field of the shape {shape}, or without time, that is not among those "
                f"to predict; got {name} {tuple(array.shape)}."
            )


def _parameters_of_each(system: str, parameters: Mapping[str, Array], count: int) -> list[dict[str, float]]:
    """Return the parameters of each of ``count`` trajectories.

    Raises:
        DataError: parameters are not numbers, or not one for each trajectory.
    """
    try:
        columns = {name: np.broadcast_to(on_the_host(of), (count,)).astype(float) for name, of in parameters.items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise DataError(
            f"{system}, parameters: expected a number for each name, or an array of one for each of {count} trajectories "
            f"({one_line(error)})."
        ) from None
    return [{name: float(column[number]) for name, column in columns.items()} for number in range(count)]


def on_the_host(values: Array) -> np.ndarray:
    """Return an array or tensor as an array of NumPy."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        values = values.float() if str(values.dtype) == "torch.bfloat16" else values
    return np.asarray(values)


@dataclass(frozen=True)
class Reader:
    """One file format: functions that recognise its files by their content, and open them.

    Attributes:
        layout: the format and the content of its files in a few words, for the message about an unknown file.
        suffixes: suffixes of the files that count when a folder is searched.
        recognises: function that tells whether a file is of this format; raises DataError if it could be, but is corrupt.
        open: function that describes the trajectories of one file.
    """

    layout: str
    suffixes: tuple[str, ...]
    recognises: Callable[[Path], bool]
    open: Callable[[Path], TrajectorySet]


def lacking_note(parameters: Sequence[str], given: Sequence[str], sets: Sequence[TrajectorySet]) -> str:
    """Return sentences on parameters and given fields that a model takes and data lacks; empty where nothing is lacking.

    Args:
        parameters: names of the parameters that the model takes.
        given: names of the given fields that the model takes; a field that a set has to predict is not lacking there.
        sets: the data sets.
    """
    said = []
    for data in sets:
        missing = [name for name in given if name not in (*data.given, *data.left_out, *data.fields)]
        for name in parameters:
            if number := sum(math.isnan(about.parameters.get(name, math.nan)) for about in data.trajectories):
                missing.append(f"{name} (in {number} of {data.num_trajectories} trajectories)")
        if missing:
            said.append(f"The model takes {listed(missing)}, which {data.system} lacks: it does without them.")
    return " ".join(said)
