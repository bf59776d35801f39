"""The description of an array in its file, and the interface that all kinds of files share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from matey.mistakes import DataError, printable

# Values that the netCDF library writes where a program has written nothing; those of integers count only in packed arrays.
_UNWRITTEN = {"f": 9.969209968386869e36, "i2": -32767.0, "i4": -2147483647.0}

READ = (
    "scale_factor",
    "add_offset",
    "_FillValue",
    "missing_value",
    "valid_range",
    "valid_min",
    "valid_max",
    "_Unsigned",
)
"""The attributes that `packing_of` reads."""


@dataclass(frozen=True)
class Packing:
    """Packing of an array's values; by default they are stored as they are.

    Attributes:
        scale: factor from a packed value to a value.
        offset: value of a packed 0.
        missing: packed values that stand for missing ones.
        lowest: lowest packed value that is not missing.
        highest: highest packed value that is not missing.
        problem: reason why the attributes cannot be followed, empty if they can.
    """

    scale: float | None = None
    offset: float | None = None
    missing: tuple[float, ...] = ()
    lowest: float = -np.inf
    highest: float = np.inf
    problem: str = ""

    @property
    def is_packed(self) -> bool:
        """Whether the numbers on disk differ from the values that they stand for."""
        return self.scale is not None or self.offset is not None

    def unpacked(self, raw: np.ndarray) -> np.ndarray:
        """Return unpacked values, NaN where one is marked as missing."""
        kind = "f" if raw.dtype.kind == "f" else raw.dtype.str[1:] if self.is_packed and not self.missing else ""
        marks = np.array([*self.missing, *([_UNWRITTEN[kind]] if kind in _UNWRITTEN else [])])
        with np.errstate(over="ignore"):
            holes = np.isin(raw, marks.astype(raw.dtype) if raw.dtype.kind == "f" else marks)
        if self.lowest > -np.inf or self.highest < np.inf:
            holes |= (raw < self.lowest) | (raw > self.highest)
        values = raw
        if self.is_packed:
            values = raw.astype(np.float64) * (1.0 if self.scale is None else self.scale) + (self.offset or 0.0)
        return np.where(holes, np.nan, values) if holes.any() else values


def packing_of(attributes: Mapping[str, object], kind: np.dtype) -> Packing:
    """Return the packing that an array's attributes state; its ``problem`` names one that cannot be followed."""
    found: dict[str, Any] = {name: attributes[name] for name in READ if attributes.get(name) is not None}
    if as_text(found.pop("_Unsigned", "")).lower() == "true" and kind.kind == "i":
        return Packing(problem="its attribute _Unsigned gives signed integers another meaning: write them as unsigned")
    numbers = {name: np.asarray(value).reshape(-1) for name, value in found.items()}
    for name, several in numbers.items():
        most = {"missing_value": several.size, "valid_range": 2}.get(name, 1)
        if several.dtype.kind not in "fiu" or several.size != most:
            return Packing(problem=f"its attribute {name} is {found[name]!r}: write it as netCDF has it")
    one = {name: float(several[0]) for name, several in numbers.items() if several.size == 1}
    low, high = map(float, numbers.get("valid_range", (-np.inf, np.inf)))
    return Packing(
        one.get("scale_factor"),
        one.get("add_offset"),
        tuple(float(mark) for name in ("_FillValue", "missing_value") for mark in numbers.get(name, ())),
        one.get("valid_min", low),
        one.get("valid_max", high),
    )


Index = tuple[int | slice, ...]


@dataclass(frozen=True)
class StoredArray:
    """An array's description in its file.

    Attributes:
        shape: shape of the array.
        dtype: type of the values on disk.
        axes: name of each axis, empty where the file names none; an axis of components may have an empty name.
        unit: unit as the file gives it, empty where it gives none.
        calendar: calendar of dates, empty where the file names none.
        packing: packing of the values, and marks of missing ones.
        problem: reason why the array has no values, empty if it has some.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    axes: tuple[str, ...] = ()
    unit: str = ""
    calendar: str = ""
    packing: Packing = field(default_factory=Packing)
    problem: str = ""

    def numbers(self, raw: np.ndarray) -> np.ndarray:
        """Return values from disk unpacked, in double precision, without axes of length 1, as MATLAB's vectors have one."""
        return np.atleast_1d(self.packing.unpacked(raw).astype(np.float64).squeeze())

    @property
    def outline(self) -> str:
        """Shape and type for a list, or the reason why it has no values."""
        return self.problem.partition(":")[0] or f"{self.shape} of {self.dtype}"

    def check_readable(self, label: str) -> None:
        """Raise DataError if the array has no values, or they cannot be unpacked."""
        if problem := self.problem or self.packing.problem:
            raise DataError(f"{label}: {problem}.")


def axis_sizes(path: Path, arrays: Mapping[str, StoredArray], axes: Mapping[str, str], system: str) -> dict[str, int]:
    """Return the length of each axis that the arrays of a file share.

    Args:
        path: the file.
        arrays: arrays of the file by name.
        axes: the axes of each array in order, each a name or a fixed length, such as ``"t y x 2"``.
        system: name of the system that the file is read as; the message cites it.

    Raises:
        DataError: an array is missing, was never written, holds no numbers, or does not fit those before it.
    """
    sizes: dict[str, int] = {}
    for name, pattern in axes.items():
        item, along = arrays.get(name), pattern.split()
        expected = [int(axis) if axis.isdigit() else sizes.get(axis, axis) for axis in along]
        shape = item.shape if item and item.dtype.kind in "fiu" else ()
        in_order = not item or {*item.axes} != {*along} or [*item.axes] == along
        if not in_order or len(shape) != len(along) or 0 in shape or any(map(_differ, expected, shape)):
            came = f"{item.shape} of {item.dtype} on {item.axes}" if item else f"only {', '.join(arrays)}"
            raise DataError(
                f"{path}, {name}: expected numbers of shape ({', '.join(map(str, expected))}), axes {pattern}, as for "
                f"{system}, got {came}; write the file again in this layout."
            )
        assert item is not None
        item.check_readable(f"{path}, {name}")
        sizes.update(zip(along, shape, strict=True))
    return sizes


def _differ(expected: int | str, size: int) -> bool:
    return isinstance(expected, int) and expected != size


@dataclass(frozen=True)
class FileKind:
    """A kind of file that holds arrays.

    Attributes:
        name: name of the kind in messages.
        suffixes: suffixes of the files that count when a folder is searched.
        recognises: function that tells whether a file, or a folder that is a store, is of this kind.
        arrays: function that describes all arrays of a file, by their paths in it.
        attributes: function that returns the attributes of a file, or of a group or array in it.
        read: function of file, name and an index for each axis that reads a part of an array.
    """

    name: str
    suffixes: tuple[str, ...]
    recognises: Callable[[Path], bool]
    arrays: Callable[[Path], dict[str, StoredArray]]
    attributes: Callable[[Path, str], dict[str, Any]]
    read: Callable[[Path, str, Index], np.ndarray]

    def numbers(self, path: Path, name: str) -> dict[str, float]:
        """Return the numbers among the attributes of the file, or of a group or array in it."""
        found = {key: as_number(value) for key, value in self.attributes(path, name).items()}
        return {key: number for key, number in found.items() if number is not None}


def as_number(value: object) -> float | None:
    """Return an attribute's value if it is one number, else None; a text is not a number."""
    if value is None or isinstance(value, str | bytes):
        return None
    array = np.asarray(value)
    return float(array.reshape(())) if array.size == 1 and array.dtype.kind in "fiu" else None


def as_text(value: object) -> str:
    """Return an attribute's text on one line, cut to 80 characters; empty where it is no text."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", errors="replace")
    return printable(" ".join(value.split()))[:80] if isinstance(value, str) else ""


def not_read(path: Path, name: str, reason: str) -> DataError:
    """Return the error about values that cannot be read."""
    return DataError(f"{path}, {name}: cannot be read ({reason}); the file is corrupt or was changed: copy it again.")
