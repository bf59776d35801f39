"""Opens a file that a description covers, and finds and checks its arrays; some may lie in files of their own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field as filled
from pathlib import Path

import numpy as np

from matey.config import DataDescription
from matey.config.description import FieldSource
from matey.data.arrays.kinds import kind_of
from matey.data.arrays.stored import FileKind, StoredArray
from matey.data.dates import as_times, is_text, numbers_of
from matey.data.trajectories import DataError
from matey.mistakes import listed, nearest_name

TIMES = " of the times"
"""Name of the use of an array that may hold dates as text."""


@dataclass(frozen=True)
class OpenedFile:
    """A file, its description, and all of its arrays.

    Attributes:
        path: the file.
        kind: kind of the file.
        description: the description of the files.
        arrays: arrays of the file by their names.
        own: files of fields that have their own, by the name of the field.
        known: values of small arrays that were read.
        group: names that replace the ``*`` in the paths of the arrays, in order, while one trajectory is looked at.
    """

    path: Path
    kind: FileKind
    description: DataDescription
    arrays: Mapping[str, StoredArray]
    own: Mapping[str, OpenedFile] = filled(default_factory=dict)
    known: dict[str, np.ndarray] = filled(default_factory=dict)
    group: tuple[str, ...] = ()

    @classmethod
    def opened(cls, path: Path, description: DataDescription, own: Mapping[str, OpenedFile]) -> OpenedFile:
        """Describe the arrays of a file.

        Raises:
            DataError: the file is missing, or cannot be read.
        """
        kind = kind_of(path)
        return cls(path, kind, description, kind.arrays(path), own)

    @property
    def first_array(self) -> str:
        """Path in the description of the first field's array that lies in this file itself; empty where it names none."""
        fields = self.description.fields.items()
        return next((source.array for name, source in fields if source.array and name not in self.own), "")

    def named(self, path: str) -> str:
        """Return the path of an array with each ``*`` replaced by a name in ``group``."""
        for name in self.group:
            path = path.replace("*", name, 1)
        return path

    def array_of(self, field: str, source: FieldSource) -> tuple[OpenedFile, str]:
        """Return the file that holds the array of a field, and the array's name in it.

        Raises:
            DataError: the description leaves the name out, and there are several.
        """
        file = self.own.get(field, self)
        if source.array is not None:
            return file, self.named(source.array)
        if len(file.arrays) != 1:
            raise DataError(
                f"{file.path}: expected the name of the array of {field!r}, since the file has {listed(file.arrays)}; write it "
                f"into the description, fields.{field}.array."
            )
        return file, next(iter(file.arrays))

    def values(self, name: str, use: str) -> np.ndarray:
        """Read all values of a small array, such as coordinates, once."""
        if name not in self.known:
            stored = self.find(name, use)
            raw = self.kind.read(self.path, name, (slice(None),) * len(stored.shape))
            self.known[name] = numbers_of(stored, raw, f"{self.path}, {name}")
        return self.known[name]

    def find(self, name: str, use: str = "", *, may_be_mask: bool = False) -> StoredArray:
        """Return the description of an array of numbers or, where ``use`` is `TIMES`, of dates as text.

        Truth values, read as 0 and 1, are accepted where the array may be a mask.

        Raises:
            DataError: the array is missing, holds something else, claims more than its file can hold, or cannot be unpacked.
        """
        if name not in self.arrays:
            found = [f"{key} {stored.shape}" for key, stored in self.arrays.items() if not stored.is_link]
            raise DataError(
                f"{self.path}: expected an array {name!r}{use}, found {listed(found)}.{nearest_name(name, self.arrays)} "
                "Correct the description."
            )
        stored = self.arrays[name]
        if stored.is_link:
            stored.check_readable(f"{self.path}, {name}")
        is_mask = may_be_mask and stored.dtype.kind == "b"
        if stored.dtype.kind not in "fiu" and not is_mask and not (TIMES in use and is_text(stored)):
            mend = "give time_step as a number" if TIMES in use else "write them as such"
            raise DataError(f"{self.path}, {name}: expected real numbers{use}, got {stored.dtype}; {mend}.")
        held = self.path.stat().st_size if self.path.is_file() else stored.limit
        stored.check_claim(f"{self.path}, {name}", held)
        stored.check_readable(f"{self.path}, {name}")
        return as_times(stored) if TIMES in use else stored
