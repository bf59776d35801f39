"""Files of a data set, and locations of the arrays of a described trajectory, in one file or in pieces."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import accumulate, groupby
from pathlib import Path

from matey.config import DataDescription
from matey.data.arrays.stored import StoredArray
from matey.data.trajectory import Part, Trajectory


@dataclass(frozen=True)
class DataFile:
    """A file of a data set, or the files of a trajectory that lies in several.

    Attributes:
        paths: path of the file, or of several in the order of time.
        description: description by which the file is read; None where a reader has to recognise its content.
        part: part of the split that the description assigns the file to.
        own: files of the fields that have their own, by path and name of the field.
    """

    paths: tuple[Path, ...]
    description: DataDescription | None = None
    part: Part | None = None
    own: Mapping[Path, Mapping[str, Path]] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        """The first path."""
        return self.paths[0]


@dataclass(frozen=True)
class Located:
    """A trajectory and where it lies in its file.

    Attributes:
        about: the trajectory.
        sample: index of the trajectory along the axis of trajectories, where the arrays have one.
        group: names that replace the ``*`` in the paths of the arrays, in order.
        arrays: name of the array of each field.
        given: name of the array of each given field, by the name of the field.
        along: name of the coordinate array of each axis that has one.
        stored: description of each of these arrays in its file, by name.
        turned: grid axes along which the file's coordinates decrease.
        elsewhere: file and name of each of these arrays that lies in a file of its own.
        times: times of all snapshots of a piece, or of a trajectory put together from pieces; empty where there are none.
        pieces: the pieces of the trajectory in the order of time, each described as if it were a trajectory.
    """

    about: Trajectory
    sample: int
    group: tuple[str, ...]
    arrays: tuple[str, ...]
    given: Mapping[str, str]
    along: Mapping[str, str]
    stored: Mapping[str, StoredArray]
    turned: frozenset[str]
    elsewhere: Mapping[str, tuple[Path, str]] = field(default_factory=dict)
    times: tuple[float, ...] = ()
    pieces: tuple[Located, ...] = ()

    def place_of(self, array: str) -> tuple[Path, str]:
        """Return the file of an array, and its name there."""
        return self.elsewhere.get(array, (self.about.source, array))

    def file_of(self, array: str) -> Path:
        """Return the file of an array."""
        return self.place_of(array)[0]

    def pieces_at(self, times: slice) -> Iterator[tuple[Located, slice]]:
        """Yield each piece that holds some of the snapshots ``times``, and their slice in the piece."""
        if not self.pieces:
            yield self, times
            return
        ends = [*accumulate(piece.about.num_frames for piece in self.pieces)]
        for number, own in groupby(range(times.start, times.stop, times.step), lambda time: bisect_right(ends, time)):
            piece, (first, *others) = self.pieces[number], own
            start = first - ends[number] + piece.about.num_frames
            yield piece, slice(start, start + len(others) * times.step + 1, times.step)
