"""What every reader yields: trajectories of one PDE system, described up front and read a few frames at a time.

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


# Files that stay open are shared by a thread that reads ahead and the one that validates; netCDF's library knows no threads.
_reading = threading.Lock()

Cells = tuple[slice, slice, slice]
"""A box of cells along ``z, y, x``, with its first cell and the one after its last."""

Array = Any
"""A NumPy array or a PyTorch tensor."""


class TrajectorySet(ABC):
    """Trajectories of one system with the same fields; grids and lengths may differ from one to the next.

    Holds descriptions and no open files, so it can be pickled or forked; each process opens files on its first read.

    Attributes:
        system: name of the PDE system, such as ``shallow_water``.
        fields: names along axis ``f``.
        units: unit of each field; ``1`` where the data set is dimensionless, ``?`` where it does not say.
        trajectories: one description per trajectory, in a fixed order.
        length_unit: unit of coordinates and spacing; ``1`` and ``?`` as in ``units``.
        time_unit: unit of times and time steps; ``1`` and ``?`` as in ``units``.
        given: names of fields that are known and not to be predicted, such as coefficients, geometry or forcing.
        given_in_time: given fields that vary in time.
        left_out: given fields that are not read, see `with_given`.
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

    @property
    def num_trajectories(self) -> int:
        """Number of trajectories."""
        return len(self.trajectories)

    @property
    def sources(self) -> tuple[Path, ...]:
        """The files of the set, each once, in order."""
        return tuple(dict.fromkeys(trajectory.source for trajectory in self.trajectories))

    @property
    def inputs(self) -> tuple[Path, ...]:
        """All files that values and parameters come from, each once: those of the set, of given fields and tables."""
        return self.sources

    @property
    def told(self) -> str:
        """The words on the files that stand beside them, as a description; empty where files say all themselves."""
        return ""

    def read(self, trajectory: int, start: int, stop: int, cells: Cells | None = None) -> np.ndarray:
        """Read frames ``start`` to ``stop - 1`` of one trajectory, and no others, from its file.

        Args:
            trajectory: index of the trajectory.
            start: first frame.
            stop: one after the last frame.
            cells: a box of cells, and no others are read; by default all.

        Returns:
            float32 of shape ``(t, f, z, y, x)`` in the units of the data set.

        Raises:
            DataError: the file has gone or is corrupt.
            BadValuesError: a value is NaN or infinite.
        """
        about = self.trajectories[trajectory]
        assert 0 <= start < stop <= about.num_frames, f"frames {start}:{stop} of {about.num_frames} in {about.label}"
        cells = cells or about.cells
        with _reading:
            frames = np.ascontiguousarray(self._read_frames(trajectory, start, stop, cells), dtype=np.float32)
        expected = (stop - start, len(self.fields), *(side.stop - side.start for side in cells))
        assert frames.shape == expected, f"{frames.shape} instead of {expected} from {about.label}"
        check_finite(about, self.fields, frames, start, [side.start for side in cells])
        return frames

    def read_given(self, trajectory: int, start: int, stop: int, cells: Cells | None = None) -> np.ndarray:
        """Read what is given in frames ``start`` to ``stop - 1``, see `read`: a single frame where all is constant in time.

        Returns:
            float32 of shape ``(t or 1, f, z, y, x)`` in the units of the data set, with the fields ``given``.

        Raises:
            DataError: the file has gone or is corrupt.
            BadValuesError: a value is NaN or infinite.
        """
        about = self.trajectories[trajectory]
        assert 0 <= start < stop <= about.num_frames, f"frames {start}:{stop} of {about.num_frames} in {about.label}"
        varies = any(name in self.given_in_time for name in self.given)
        cells = cells or about.cells
        shape = (stop - start if varies else 1, *(side.stop - side.start for side in cells))
        asked = start, stop, cells
        with _reading:
            each = [np.broadcast_to(self._read_given(trajectory, name, *asked), shape) for name in self.given]
        frames = np.ascontiguousarray(np.stack(each, axis=1), dtype=np.float32)
        check_finite(about, self.given, frames, start, [side.start for side in cells])
        return frames

    def chunk(self, trajectory: int) -> tuple[int, int, int] | None:
        """Return the cells ``z, y, x`` of a compressed chunk, which the file gives whole; None where it gives any part."""
        return None

    def with_given(self, names: Collection[str]) -> TrajectorySet:
        """Return the set with those of its given fields that are named; no others are read."""
        chosen = copy(self)
        chosen.given = tuple(name for name in self.given if name in names)
        chosen.left_out = (*self.left_out, *(name for name in self.given if name not in names))
        return chosen

    def coordinates(self, axis: str, trajectories: Sequence[int]) -> Coordinates | None:
        """Read what files say of ``time``, or of a grid axis that the data has; None where they differ or say nothing.

        Times go as far as the longest of the trajectories.
        """
        with _reading:
            return common_coordinates(self._read_coordinates(axis, trajectories))

    @abstractmethod
    def _read_frames(self, trajectory: int, start: int, stop: int, cells: Cells) -> np.ndarray:
        """Read frames of a box of cells in the shape that ``read`` promises; it checks bounds, shape and values."""

    def _read_coordinates(self, axis: str, trajectories: Sequence[int]) -> Iterator[Coordinates | None]:
        """Yield the coordinates of each of some trajectories, None of one whose file has none."""
        yield from [None] * len(trajectories)

    def _read_given(self, trajectory: int, name: str, start: int, stop: int, cells: Cells) -> np.ndarray:
        """Read a given field in a box of cells, ``(t, z, y, x)`` or what can be broadcast to that."""
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
        """Return a set of trajectories that lie in memory, such as a solver in the same program makes.

        Nothing is copied: what is written into the arrays later is read as it is then. Arrays on a GPU are copied from it frame
        by frame. Sets of different lengths or grids are put together by `JoinedTrajectories`.

        Args:
            system: name of the PDE system.
            fields: an array or tensor ``(n, t, [[z,] y,] x)`` of real numbers for each field, ``n`` counting trajectories.
            spacing: cell size along each grid axis, in the order of the arrays.
            boundary: kind of boundary at the ends of each grid axis.
            time_step: time between two snapshots.
            units: unit of a field by its name.
            parameters: numbers that set trajectories apart: an array ``(n,)`` or a number for each name, or the numbers by
                name for each trajectory. NaN stands for one that is not known.
            given: an array for each field that is known and not to be predicted: ``(n, t, [[z,] y,] x)`` where it varies
                in time, ``(n, [[z,] y,] x)`` where not.
            coordinates: labels of frames or cells along ``time``, ``z``, ``y`` or ``x``, which forecasts get as well; by
                default these count from the lower end of each axis.

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
    """One format: how to tell a file of it by its content, and how to open it.

    Attributes:
        layout: the format and what is in a file of it, in a few words, for the message about an unknown file.
        suffixes: endings of the files to look at when a folder is searched.
        recognises: whether a file is of this format; raises DataError if it could be, but is corrupt.
        open: describes the trajectories of one file.
    """

    layout: str
    suffixes: tuple[str, ...]
    recognises: Callable[[Path], bool]
    open: Callable[[Path], TrajectorySet]
