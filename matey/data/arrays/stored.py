"""The description of an array in its file, and the interface that all kinds of files share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from matey.data.hdf5 import refuse_claim
from matey.data.trajectories import DataError
from matey.mistakes import printable

# Values that the netCDF library writes where a program has written nothing.
_FLOAT_FILL = 9.969209968386869e36
_PACKED_FILL = {np.dtype("i2"): -32767.0, np.dtype("i4"): -2147483647.0}

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
        lowest: lowest value that is not missing.
        highest: highest value that is not missing.
        bounds_values: whether these two bounds are unpacked values; otherwise they are packed ones.
        is_unsigned: whether the bits of a signed integer are those of an unsigned one.
        problem: reason why the attributes cannot be followed, empty if they can.
    """

    scale: float | None = None
    offset: float | None = None
    missing: tuple[float, ...] = ()
    lowest: float = -np.inf
    highest: float = np.inf
    bounds_values: bool = False
    is_unsigned: bool = False
    problem: str = ""

    @property
    def is_packed(self) -> bool:
        """Whether the numbers on disk differ from the values that they stand for."""
        return self.scale is not None or self.offset is not None

    @property
    def may_miss(self) -> bool:
        """Whether some values may be marked as missing."""
        return self.is_packed or bool(self.missing) or self.lowest > -np.inf or self.highest < np.inf

    @property
    def marks_by_nan(self) -> bool:
        """Whether NaN alone marks missing values, as in all floats of xarray; a solver that diverged leaves NaN as well."""
        has_bounds = self.lowest > -np.inf or self.highest < np.inf
        return bool(self.missing) and all(map(np.isnan, self.missing)) and not self.is_packed and not has_bounds

    def unpacked(self, raw: np.ndarray) -> np.ndarray:
        """Return unpacked values, NaN where one is marked as missing."""
        kind, lowest, highest = raw.dtype, self.lowest, self.highest
        marks = [*self.missing, *([_FLOAT_FILL] if kind.kind == "f" else [])]
        if self.is_packed and not self.missing and not self.is_unsigned and kind in _PACKED_FILL:
            marks.append(_PACKED_FILL[kind])
        if self.is_unsigned and kind.kind == "i":
            raw, wrap = raw.view(kind.str.replace("i", "u")), 2.0 ** (8 * kind.itemsize)
            marks = [mark % wrap for mark in marks]
            lowest, highest = (bound if abs(bound) == np.inf else bound % wrap for bound in (lowest, highest))
        holes = np.isin(raw, np.array([mark for mark in marks if _can_hold(raw.dtype, mark)]).astype(raw.dtype))
        values = raw
        if self.is_packed:
            values = raw.astype(np.float64) * (1.0 if self.scale is None else self.scale) + (self.offset or 0.0)
        if lowest > -np.inf or highest < np.inf:
            bounded = values if self.bounds_values else raw
            holes |= (bounded < lowest) | (bounded > highest)
        return np.where(holes, np.nan, values) if holes.any() else values


def packing_of(attributes: Mapping[str, object], kind: np.dtype) -> Packing:
    """Return the packing that an array's attributes state; its ``problem`` names an attribute that is no number."""
    found: dict[str, Any] = {name: attributes[name] for name in READ if attributes.get(name) is not None}
    is_unsigned = _text(found.pop("_Unsigned", "")).lower() == "true"
    numbers = {name: np.asarray(value).reshape(-1) for name, value in found.items()}
    for name, several in numbers.items():
        most = {"missing_value": several.size, "valid_range": 2}.get(name, 1)
        if several.dtype.kind not in "fiu" or several.size != most:
            expected = "two numbers" if most == 2 else "a number"
            return Packing(problem=f"its attribute {name} is {found[name]!r}, expected {expected}: write it as such")
    one = {name: float(several[0]) for name, several in numbers.items() if several.size == 1}
    bounds = [numbers[name].dtype.kind for name in ("valid_range", "valid_min", "valid_max") if name in numbers]
    low, high = map(float, numbers.get("valid_range", (-np.inf, np.inf)))
    return Packing(
        one.get("scale_factor"),
        one.get("add_offset"),
        tuple(float(mark) for name in ("_FillValue", "missing_value") for mark in numbers.get(name, ())),
        one.get("valid_min", low),
        one.get("valid_max", high),
        "f" in bounds and kind.kind != "f",
        is_unsigned,
    )


def _can_hold(kind: np.dtype, mark: float) -> bool:
    """Whether a type can hold a number, to the precision of the type."""
    if kind.kind == "b":
        return False
    if kind.kind == "f":
        return not abs(mark) > float(np.finfo(kind).max)
    return bool(np.isfinite(mark)) and mark == round(mark) and np.iinfo(kind).min <= mark <= np.iinfo(kind).max


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


Index = tuple[int | slice, ...]


@dataclass(frozen=True)
class StoredArray:
    """An array's description in its file.

    Attributes:
        shape: shape of the array.
        dtype: type of the values on disk.
        axes: name of each axis, empty where the file names none; an axis of components may have an empty name.
        scales: path of the coordinate array of each axis, empty where the file ties none to the axis.
        unit: unit as the file gives it, empty where it gives none.
        calendar: calendar of dates, empty where the file names none.
        packing: packing of the values, and marks of missing ones.
        problem: reason why the array has no values, empty if it has some.
        claimed: bytes that the array's shape claims, or one of its chunks if that is larger.
        limit: largest number of bytes of the array that its file can hold.
        chunk: shape of chunks that can only be read whole, such as compressed ones; empty where any part can be read.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    axes: tuple[str, ...] = ()
    scales: tuple[str, ...] = ()
    unit: str = ""
    calendar: str = ""
    packing: Packing = field(default_factory=Packing)
    problem: str = ""
    claimed: int = 0
    limit: int = 0
    chunk: tuple[int, ...] = ()

    @property
    def is_link(self) -> bool:
        """Whether the name stands for something that lies elsewhere."""
        return self.dtype == np.dtype("V")

    @property
    def outline(self) -> str:
        """Shape and type for a list, or the reason why it has no values."""
        return self.problem.partition(":")[0] or f"{self.shape} of {self.dtype}"

    def check_claim(self, label: str, held: int) -> None:
        """Raise DataError if the array claims more than its file can hold; ``held`` is the size of the file in bytes."""
        if self.claimed > self.limit:
            refuse_claim(label, self.shape, self.claimed, held)

    def check_readable(self, label: str) -> None:
        """Raise DataError if the array has no values, or they cannot be unpacked."""
        if problem := self.problem or self.packing.problem:
            raise DataError(f"{label}: {problem}.")


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
        read_several: the same for several arrays, where opening the file once for all of them is cheaper.
    """

    name: str
    suffixes: tuple[str, ...]
    recognises: Callable[[Path], bool]
    arrays: Callable[[Path], dict[str, StoredArray]]
    attributes: Callable[[Path, str], dict[str, Any]]
    read: Callable[[Path, str, Index], np.ndarray]
    read_several: Callable[[Path, Sequence[str], Index], list[np.ndarray]] | None = None

    def read_all(self, path: Path, names: Sequence[str], index: Index) -> list[np.ndarray]:
        """Read the same part of several arrays."""
        if self.read_several is not None:
            return self.read_several(path, names, index)
        return [self.read(path, name, index) for name in names]

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
