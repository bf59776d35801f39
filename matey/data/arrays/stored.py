"""The description of an array in its file, and the interface that all kinds of files share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from matey.data.arrays.packing import Packing
from matey.data.hdf5 import refuse_claim
from matey.data.trajectories import DataError
from matey.mistakes import printable

Index = tuple[int | slice, ...]


@dataclass(frozen=True)
class StoredArray:
    """An array's description in its file.

    Attributes:
        shape: shape of the array.
        dtype: type of the values on disk.
        axes: name of each axis, empty where the file names none; an axis of components may have an empty name.
        steps: cell size along each axis, empty where the array's attributes do not state it.
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
    steps: tuple[float, ...] = ()
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
