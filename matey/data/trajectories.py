"""Trajectories of one PDE system, which every reader yields: described up front and read a few frames at a time.

The file of a format (``pdebench``, ...) fills in the descriptions and ``_read_frames``; the checks that all formats
share are here. Axis legend: ``t`` time, ``f`` field, ``z y x`` grid axes; two-dimensional data has ``z = 1``.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from matey.data.in_memory import on_the_host, trajectories_of
from matey.data.trajectory import (
    BadValuesError,
    Boundary,
    Coordinates,
    DataError,
    Part,
    Trajectory,
    check_finite,
    common_coordinates,
)

__all__ = ["BadValuesError", "Boundary", "Coordinates", "DataError", "Part", "Reader", "Trajectory", "TrajectorySet"]


# A thread that reads ahead and the one that validates share open files, and netCDF's library is not thread-safe.
_reading = threading.Lock()

Cells = tuple[slice, slice, slice]
"""A box of cells: its first cell and the one after its last along each of ``z, y, x``."""

Array = Any
"""A NumPy array or a PyTorch tensor."""


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
    _chunk: tuple[int, int, int] | None = None  # of all trajectories, see `chunk`
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

    def read(self, trajectory: int, start: int, stop: int, cells: Cells | None = None) -> np.ndarray:
        """Read frames ``start`` to ``stop - 1`` of one trajectory, and no others, from its file.

        Args:
            trajectory: index of the trajectory.
            start: first frame.
            stop: one after the last frame.
            cells: box of cells to read; by default all.

        Returns:
            float32 of shape ``(t, f, z, y, x)`` in the units of the data set.

        Raises:
            DataError: the file is gone or corrupt.
            BadValuesError: a value is NaN or infinite.
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
        check_finite(about, self.fields, frames, start, [side.start for side in cells])
        return frames

    def read_given(self, trajectory: int, start: int, stop: int, cells: Cells | None = None) -> np.ndarray:
        """Read the given fields in frames ``start`` to ``stop - 1``, see `read`; a single frame if all are constant in time.

        Returns:
            float32 of shape ``(t or 1, f, z, y, x)`` in the units of the data set, with the fields ``given``.

        Raises:
            DataError: the file is gone or corrupt.
            BadValuesError: a value is NaN or infinite.
        """
        about = self.trajectories[trajectory]
        assert 0 <= start < stop <= about.num_frames, f"frames {start}:{stop} of {about.num_frames} in {about.label}"
        cells = cells or about.cells
        shape = (stop - start if self.varying else 1, *(side.stop - side.start for side in cells))
        asked = start, stop, cells
        with _reading:
            each = [np.broadcast_to(self._read_given(trajectory, name, *asked), shape) for name in self.given]
        frames = np.ascontiguousarray(np.stack(each, axis=1), dtype=np.float32)
        check_finite(about, self.given, frames, start, [side.start for side in cells])
        return frames

    def chunk(self, trajectory: int) -> tuple[int, int, int] | None:
        """Return the shape ``z, y, x`` of a compressed chunk, which is read whole; None where any part can be read."""
        return self._chunk

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
        parameters: Sequence[Mapping[str, float]] | Mapping[str, Array | float] | None = None,
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
            parameters: numbers that set trajectories apart: an array ``(n,)`` or a number for each name, or the numbers by
                name for each trajectory. NaN stands for one that is not known.
            given: an array for each field that is known beforehand and not predicted: ``(n, t, [[z,] y,] x)`` where it varies
                in time, ``(n, [[z,] y,] x)`` where not.
            coordinates: coordinates of frames or cells along ``time``, ``z``, ``y`` or ``x``, which forecasts get as well; by
                default they start at the lower end of each axis.

        Raises:
            DataError: arrays are not of this shape, or differ in shape.
        """
        units, given = {} if units is None else units, {} if given is None else given
        abouts = trajectories_of(
            system,
            fields,
            given,
            spacing=spacing,
            boundary=boundary,
            time_step=time_step,
            units=units,
            parameters=parameters,
            coordinates=coordinates or {},
        )
        return _InMemory(system, fields, given, abouts, units, coordinates or {})


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
