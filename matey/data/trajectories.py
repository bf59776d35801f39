"""What every reader yields: trajectories of one PDE system, described up front and read a few frames at a time.

The file of a format (``pdebench``, ...) fills in the descriptions and ``_read_frames``; the checks that all formats
share are here. Axis legend: ``t`` time, ``f`` field, ``z y x`` grid axes; two-dimensional data has ``z = 1``.
"""

from __future__ import annotations

import math
import threading
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from matey.mistakes import Mistake

Boundary = Literal["periodic", "open", "wall", "no_flux", "mixed", "none"]
"""What both ends of an axis are; ``mixed`` where they differ, ``none`` for the missing axis of data with fewer."""

_NO_AXIS: Boundary = "none"

Part = Literal["train", "valid", "test"]
"""What a trajectory is for."""

# Files that stay open are shared by a thread that reads ahead and the one that validates; netCDF's library knows no threads.
_reading = threading.Lock()

Array = Any
"""A NumPy array or a PyTorch tensor."""


class DataError(Mistake):
    """Data that cannot be used: one sentence with the file, what was expected, what came and what to do."""


class BadValuesError(DataError):
    """Data that was read as it lies in its file, and holds NaN or infinity."""


@dataclass(frozen=True)
class Trajectory:
    """One run of a solver as its file describes it; holds no field values.

    Attributes:
        source: the file it lies in.
        name: its name inside that file, such as ``0023``.
        num_frames: number of snapshots.
        grid: number of cells along ``z, y, x``.
        spacing: cell size along ``z, y, x`` in the units of the data set (1 along a missing axis).
        boundary: kind of boundary at the ends of ``z, y, x``.
        time_step: time between two snapshots in the units of the data set.
        parameters: numbers that set the run apart, such as ``dam_radius`` or ``seed``.
        split: the part that its publisher meant it for; None where the files leave that open.
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

    @property
    def periodic(self) -> tuple[bool, bool, bool]:
        """Whether the domain wraps around along ``z, y, x``."""
        z, y, x = (kind == "periodic" for kind in self.boundary)
        return z, y, x

    @property
    def label(self) -> str:
        """File and name, as a message or a plot cites it."""
        return f"{self.source}, trajectory {self.name}"


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
    """

    system: str
    fields: tuple[str, ...]
    units: tuple[str, ...]
    trajectories: tuple[Trajectory, ...]
    length_unit: str = "?"
    time_unit: str = "?"

    @property
    def num_trajectories(self) -> int:
        """Number of trajectories."""
        return len(self.trajectories)

    @property
    def sources(self) -> tuple[Path, ...]:
        """The files of the set, each once, in order."""
        return tuple(dict.fromkeys(trajectory.source for trajectory in self.trajectories))

    def read(self, trajectory: int, start: int, stop: int) -> np.ndarray:
        """Read frames ``start`` to ``stop - 1`` of one trajectory, and no others, from its file.

        Returns:
            float32 of shape ``(t, f, z, y, x)`` in the units of the data set.

        Raises:
            DataError: the file has gone or is corrupt.
            BadValuesError: a value is NaN or infinite.
        """
        about = self.trajectories[trajectory]
        assert 0 <= start < stop <= about.num_frames, f"frames {start}:{stop} of {about.num_frames} in {about.label}"
        with _reading:
            frames = np.ascontiguousarray(self._read_frames(trajectory, start, stop), dtype=np.float32)
        assert frames.shape == (stop - start, len(self.fields), *about.grid), f"{frames.shape} from {about.label}"
        if not np.isfinite(frames).all():
            frame, field_index, *cell = (int(axis[0]) for axis in np.nonzero(~np.isfinite(frames)))
            raise BadValuesError(
                f"{about.label}: expected finite values, but field {self.fields[field_index]!r} is "
                f"{frames[frame, field_index, *cell]} in frame {start + frame} at (z, y, x) = {tuple(cell)}; "
                f"mend or remove this trajectory; training can go on without such windows (data.bad_values: skip)."
            )
        return frames

    @abstractmethod
    def _read_frames(self, trajectory: int, start: int, stop: int) -> np.ndarray:
        """Read frames in the shape that ``read`` promises; it checks bounds, shape and values."""

    @staticmethod
    def from_arrays(
        system: str,
        fields: Mapping[str, Array],
        *,
        spacing: Sequence[float],
        boundary: Sequence[Boundary],
        time_step: float = 1.0,
        units: Mapping[str, str] | None = None,
        parameters: Sequence[Mapping[str, float]] | None = None,
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
            parameters: numbers that set a trajectory apart, for each trajectory.

        Raises:
            DataError: arrays are not of this shape, or differ in shape.
        """
        return _InMemory(system, fields, spacing, boundary, time_step, units or {}, parameters or [])


class _InMemory(TrajectorySet):
    """Trajectories in arrays of this process."""

    def __init__(
        self,
        system: str,
        fields: Mapping[str, Array],
        spacing: Sequence[float],
        boundary: Sequence[Boundary],
        time_step: float,
        units: Mapping[str, str],
        parameters: Sequence[Mapping[str, float]],
    ) -> None:
        self.system, self.fields = system, tuple(fields)
        self.units = tuple(units.get(name, "?") for name in fields)
        self._arrays = tuple(fields.values())
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
        if unknown := set(boundary) - set(get_args(Boundary)):
            raise DataError(f"{system}: expected boundaries {', '.join(get_args(Boundary))}, got {', '.join(unknown)}.")
        if not 0 < time_step < math.inf or not all(0 < step < math.inf for step in spacing):
            raise DataError(
                f"{system}: expected steps above 0 in space and time, got {tuple(spacing)} and {time_step}."
            )
        if parameters and len(parameters) != shape[0]:
            raise DataError(f"{system}: expected parameters of {shape[0]} trajectories, got {len(parameters)}.")
        missing = 3 - num_axes
        grid_z, grid_y, grid_x = (1,) * missing + shape[2:]
        step_z, step_y, step_x = (1.0,) * missing + tuple(float(step) for step in spacing)
        end_z, end_y, end_x = (_NO_AXIS,) * missing + tuple(boundary)
        self.trajectories = tuple(
            Trajectory(
                source=Path("memory"),
                name=str(number),
                num_frames=shape[1],
                grid=(grid_z, grid_y, grid_x),
                spacing=(step_z, step_y, step_x),
                boundary=(end_z, end_y, end_x),
                time_step=float(time_step),
                parameters=dict(parameters[number]) if parameters else {},
            )
            for number in range(shape[0])
        )

    def _read_frames(self, trajectory: int, start: int, stop: int) -> np.ndarray:
        about = self.trajectories[trajectory]
        frames = [_on_the_host(array[trajectory, start:stop]) for array in self._arrays]
        return np.stack(frames, axis=1).reshape(stop - start, len(frames), *about.grid)


def _on_the_host(values: Any) -> np.ndarray:  # noqa: ANN401 (this module does without PyTorch)
    return np.asarray(values.detach().cpu() if hasattr(values, "detach") else values)


class JoinedTrajectories(TrajectorySet):
    """Several sets of one system, one after the other."""

    def __init__(self, parts: Sequence[TrajectorySet]) -> None:
        """Join ``parts``.

        Raises:
            DataError: they differ in system, fields or units.
        """
        first = parts[0]
        for part in parts[1:]:
            expected, came = ((s.system, s.fields, s.units) for s in (first, part))
            if came != expected:
                raise DataError(
                    f"{part.sources[0]} cannot be joined to {first.sources[0]}: expected (system, fields, units) "
                    f"{expected}, got {came}; open them as two data sets."
                )
        self.system, self.fields, self.units = first.system, first.fields, first.units
        self.length_unit, self.time_unit = first.length_unit, first.time_unit
        self.trajectories = tuple(trajectory for part in parts for trajectory in part.trajectories)
        self._parts = tuple(parts)
        self._firsts = tuple(accumulate((part.num_trajectories for part in parts[:-1]), initial=0))

    def _read_frames(self, trajectory: int, start: int, stop: int) -> np.ndarray:
        part = bisect_right(self._firsts, trajectory) - 1
        return self._parts[part]._read_frames(trajectory - self._firsts[part], start, stop)


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
