"""Guesses which files beside one hold its other fields: ``v_0010.npy`` beside ``u_0010.npy``."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import combinations, islice
from pathlib import Path

from matey.data.arrays.stored import FileKind
from matey.data.guessed_fields import is_name_of_field, likely_fields
from matey.data.remote.paths import RemotePath
from matey.data.trajectories import DataError
from matey.mistakes import listed

_MOST = 20  # files that are opened to look at their shapes
_WORD = "[A-Za-z]+(?:_[A-Za-z]+)*"
_PARTS = {"train", "training", "valid", "validation", "val", "test", "testing"}


@dataclass(frozen=True)
class OtherFiles:
    """Files beside one whose names differ from its own in one word, a field's name, and that hold an array of its shape.

    Attributes:
        word: this word in the name of the file itself; empty where there are no such files.
        arrays: name of the array in each other file, and names of its axes, by the word in the file's name.
    """

    word: str = ""
    arrays: Mapping[str, tuple[str, tuple[str, ...]]] = field(default_factory=dict)

    @classmethod
    def beside(cls, path: Path, kind: FileKind, shape: tuple[int, ...]) -> OtherFiles:
        """Search the folder of a file, if it is on this machine.

        Args:
            path: the file.
            kind: kind of the file and of the others.
            shape: shape of the file's only field.
        """
        if isinstance(path, RemotePath):
            return cls()
        listing = sorted(file for file in path.parent.iterdir() if file.suffix == path.suffix and file != path)
        for start, end in _words(path.stem):
            word, pattern = path.stem[start:end], f"{re.escape(path.stem[:start])}({_WORD}){re.escape(path.stem[end:])}"
            alike = ((match[1], file) for file in listing if (match := re.fullmatch(pattern, file.stem)))
            no_parts = ((other, file) for other, file in alike if other.lower() not in _PARTS)
            found = {other: _field_of_shape(file, kind, shape) for other, file in islice(no_parts, _MOST)}
            arrays = {other: array for other, array in found.items() if array}
            if arrays and any(map(is_name_of_field, (word, *arrays))):
                return cls(word, arrays)
        return cls()

    @property
    def said(self) -> str:
        """A note that these files are taken for other fields."""
        return (
            f"Files beside it that have {listed(self.arrays)} for {self.word} in their names, and arrays of its shape, are "
            "taken for its other fields; remove what is none."
        )

    def file_of(self, other: str, files: str) -> str:
        """Return the path or glob of another field's files.

        Args:
            other: the word in the names of those files.
            files: path or glob of the files of this field.
        """
        folder, slash, name = files.rpartition("/")
        return folder + slash + re.sub(rf"(?<![A-Za-z]){self.word}(?![A-Za-z])", other, name, count=1)


def _words(stem: str) -> Iterator[tuple[int, int]]:
    """Yield the start and end of each word that may be a field's name, the likeliest first, then the longest."""
    ends = [match.span() for match in re.finditer("[A-Za-z]+", stem)]
    spans = {(ends[first][0], ends[last - 1][1]) for first, last in combinations(range(len(ends) + 1), 2)}
    words = {span: word for span in spans if re.fullmatch(_WORD, word := stem[slice(*span)])}
    yield from sorted(
        (span for span, word in words.items() if word.lower() not in _PARTS),
        key=lambda span: (not is_name_of_field(words[span]), span[0] - span[1], span),
    )


def _field_of_shape(path: Path, kind: FileKind, shape: tuple[int, ...]) -> tuple[str, tuple[str, ...]] | None:
    """Return the only likely field in a file, and names of its axes, if it has this shape, its axes in any order."""
    try:
        arrays = {name: stored for name, stored in kind.arrays(path).items() if stored.dtype.kind in "fiu"}
    except DataError:  # damaged, or of another kind
        return None
    fields = likely_fields(arrays)
    if [sorted(stored.shape) for stored in fields.values()] != [sorted(shape)]:
        return None
    ((name, stored),) = fields.items()
    return (name, stored.axes) if stored.axes or stored.shape == shape else None
