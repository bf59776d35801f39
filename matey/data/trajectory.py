"""The description of one trajectory, and errors about data that cannot be used."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from matey.config.description import PartName
from matey.fields import LARGEST
from matey.mistakes import Mistake

Boundary = Literal["periodic", "open", "wall", "no_flux", "mixed", "none"]
"""Kind of boundary at both ends of an axis; ``mixed`` where they differ, ``none`` for an axis that the data lacks."""

NO_AXIS: Boundary = "none"

Part = PartName
"""Part of a split that a trajectory is in."""

PARTS: tuple[Part, ...] = get_args(Part)


class DataError(Mistake):
    """Data that cannot be used: one sentence with the file, what was expected, what came and what to do."""


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
    """

    values: np.ndarray
    unit: str
    calendar: str = ""

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


def check_finite(about: Trajectory, names: Sequence[str], frames: np.ndarray, start: int, first: Sequence[int]) -> None:
    """Raise BadValuesError if a value of frames ``(t, f, z, y, x)`` is not finite, or too large; ``start`` is their first."""
    if not (frames.min() >= -LARGEST and frames.max() <= LARGEST):  # false where NaN is among them
        frame, index, *cell = (int(axis[0]) for axis in np.nonzero(~(np.abs(frames) <= LARGEST)))
        place = tuple(before + number for before, number in zip(first, cell, strict=True))
        value = frames[frame, index, *cell]
        too_large = np.isfinite(value)
        raise BadValuesError(
            f"{about.label}: expected {f'values up to {LARGEST:g}' if too_large else 'finite values'}, but field "
            f"{names[index]!r} is {value} in frame {start + frame} at (z, y, x) = {place}; "
            f"{'write larger units, such as scale: 1e-20 beside the array in a description; or ' if too_large else ''}"
            f"repair or remove this trajectory; training can leave out such windows (data.bad_values: skip)."
        )


def check_part(label: str, index: Sequence[int | slice], part: np.ndarray) -> np.ndarray:
    """Return a part of an array as it was read; ``index`` has a number or a slice for each of its first axes.

    Raises:
        DataError: slices were cut, since the array is shorter than it was when it was described.
    """
    slices = [along for along in index if isinstance(along, slice)]
    came = np.shape(part)[: len(slices)]  # h5py gives a single text as bytes
    expected = tuple(
        size if along.stop is None else len(range(along.start or 0, along.stop, along.step or 1))
        for along, size in zip(slices, came, strict=False)
    )
    if len(came) < len(slices) or came != expected:
        raise DataError(
            f"{label} was changed while it was read: expected a part of shape {expected}, got {came}; start again, and let "
            "nothing write into files that are in use."
        )
    return part
