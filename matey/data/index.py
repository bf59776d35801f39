"""Descriptions of data files, kept in a run's folder, so that unchanged files need not be opened again.

A file counts as unchanged if its size and modification time are the same. Stores that are folders are described each time, and
so are files of readers from other packages: reading the index runs no code from outside this package. Paths and descriptions
stay out of it, so that it leads to no other file or address than those that the run's data sets name.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import is_dataclass
from functools import partial
from pathlib import Path
from typing import Any

from matey.config import DataDescription
from matey.data.located import DataFile
from matey.data.remote.paths import place
from matey.data.share import Share
from matey.data.trajectories import TrajectorySet

Stamp = tuple[int, ...]
"""Size of each of the files in bytes, and its modification time in nanoseconds."""

Stamped = tuple[Stamp | None, TrajectorySet | None]

_OWN = "matey.data."
_DESCRIPTION = ""  # stands for the description of the file
_OF_OTHERS = {
    *((f"numpy.{core}.multiarray", name) for core in ("_core", "core") for name in ("_reconstruct", "scalar")),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
}
# Errors that unpickling may raise where someone has written the index by hand.
_UNREADABLE = (
    pickle.UnpicklingError,
    zlib.error,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ImportError,
    EOFError,
)


class Index:
    """Descriptions of files, with the sizes and modification times that these had.

    Args:
        code: fingerprint of the code; files that other code has described are described anew.
        text: an index that was written earlier; a corrupt one is ignored.
    """

    def __init__(self, code: str, text: bytes = b"") -> None:
        self._code = code
        self._earlier = _entries(code, text)
        self._entries: dict[str, Stamped] = {}

    def described(
        self, files: Sequence[DataFile], describe: Callable[[DataFile], TrajectorySet | None], share: Share
    ) -> list[TrajectorySet | None]:
        """Describe files, each on one rank only, except those that rank 0's index knows.

        Args:
            files: the files.
            describe: function that describes a file, or returns None if its layout is unknown.
            share: function that shares the files out over ranks.

        Raises:
            DataError: see ``describe``.
        """
        (known,) = share(self._unchanged, [files])
        anew = iter(
            share(
                partial(_stamped, describe),
                [file for file, (_, part) in zip(files, known, strict=True) if part is None],
            )
        )
        entries = [next(anew) if part is None else (stamp, part) for stamp, part in known]
        self._entries |= {_key(file): entry for file, entry in zip(files, entries, strict=True)}
        return [part for _, part in entries]

    def text(self) -> bytes:
        """Return the index of all files that were asked about."""
        kept = {key: (stamp, part) for key, (stamp, part) in self._entries.items() if stamp and _is_own(part)}
        body = zlib.compress(
            pickle.dumps({key: (stamp, _pickled(part)) for key, (stamp, part) in kept.items()}), level=1
        )
        return f"{self._code} {hashlib.sha256(body).hexdigest()}\n".encode() + body

    def _unchanged(self, files: Sequence[DataFile]) -> list[Stamped]:
        found = (self._earlier.get(_key(file), (None, b"")) for file in files)
        return [
            (stamp, _unpickled(body, file)) if stamp and stamp == _stamp(file) else (None, None)
            for file, (stamp, body) in zip(files, found, strict=True)
        ]


def _stamped(describe: Callable[[DataFile], TrajectorySet | None], file: DataFile) -> Stamped:
    stamp = _stamp(file)  # taken first: a file that changes meanwhile is described anew the next time
    return stamp, describe(file)


def _stamp(file: DataFile) -> Stamp | None:
    """Return the stamp of a file; None if a path is missing or a folder, whose stamp does not follow its contents."""
    paths = list(dict.fromkeys((*_paths(file), *map(place, file.description.tables if file.description else ()))))
    there = [path.stat() for path in paths if path.is_file()]
    if len(there) < len(paths):
        return None
    return tuple(number for about in there for number in (about.st_size, about.st_mtime_ns))


def _paths(file: DataFile) -> tuple[Path, ...]:
    return *file.paths, *(path for of_fields in file.own.values() for path in of_fields.values())


def _key(file: DataFile) -> str:
    return repr(([*map(str, file.paths)], file.description and file.description.model_dump_json(), file.part))


def _is_own(part: TrajectorySet | None) -> bool:
    return part is not None and type(part).__module__.startswith(_OWN)


def _entries(code: str, text: bytes) -> dict[str, tuple[Stamp | None, bytes]]:
    head, _, body = text.partition(b"\n")
    if head != f"{code} {hashlib.sha256(body).hexdigest()}".encode():
        return {}
    try:
        found = _Unpickler(zlib.decompress(body), {}).load()
        return {key: (stamp, part) for key, (stamp, part) in found.items()}
    except _UNREADABLE:
        return {}


def _pickled(part: TrajectorySet | None) -> bytes:
    buffer = io.BytesIO()
    _Pickler(buffer).dump(part)
    return buffer.getvalue()


def _unpickled(body: bytes, file: DataFile) -> TrajectorySet | None:
    """Return the description of a file's contents; None where someone has written it by hand."""
    known = {str(path): path for path in _paths(file)} | {_DESCRIPTION: file.description}
    try:
        part = _Unpickler(body, known).load()
    except _UNREADABLE:
        return None
    return part if isinstance(part, TrajectorySet) else None


class _Pickler(pickle.Pickler):
    """Leaves out paths and descriptions, which whoever asks for a file names."""

    def persistent_id(self, item: object) -> str | None:
        if isinstance(item, Path):
            return str(item)
        return _DESCRIPTION if isinstance(item, DataDescription) else None


class _Unpickler(pickle.Unpickler):
    """Makes objects of our own descriptions only: whoever can write to a run's folder cannot run code by an index."""

    def __init__(self, body: bytes, known: Mapping[str, object]) -> None:
        super().__init__(io.BytesIO(body))
        self._known = known

    def persistent_load(self, name: str) -> object:
        if name not in self._known:
            raise pickle.UnpicklingError(f"{name} is no path of the file")
        return self._known[name]

    def find_class(self, module: str, name: str) -> Any:  # noqa: ANN401
        if module.startswith(_OWN) or (module, name) in _OF_OTHERS:
            found = super().find_class(module, name)
            is_class = isinstance(found, type) and (found.__module__, found.__qualname__) == (module, name)
            if (is_class and (is_dataclass(found) or issubclass(found, TrajectorySet))) or (module, name) in _OF_OTHERS:
                return found
        raise pickle.UnpicklingError(f"{module}.{name} is no part of a description")
