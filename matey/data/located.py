"""Where a trajectory of described files lies: its arrays, in one file or in several pieces that follow each other in time."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby

from matey.data.arrays.stored import StoredArray
from matey.data.trajectory import Trajectory


@dataclass(frozen=True)
class Located:
    """A trajectory and where it lies in its file.

    Attributes:
        about: the trajectory.
        sample: index of the trajectory along the arrays' axis, where there is one.
        group: names that stand in the place of each ``*`` in the paths of the arrays.
        arrays: name of the array of each field.
        given: name of the array of each given field, by its name.
        along: name of the array of coordinates of each axis that has one.
        stored: description of each of these arrays by the file.
        turned: grid axes along which the file's coordinates decrease.
        times: times of all snapshots, where it is put together from several pieces and they have times.
        pieces: the pieces that it is put together from, in the order of time; each is described as if it were a trajectory.
    """

    about: Trajectory
    sample: int
    group: tuple[str, ...]
    arrays: tuple[str, ...]
    given: Mapping[str, str]
    along: Mapping[str, str]
    stored: Mapping[str, StoredArray]
    turned: frozenset[str]
    times: tuple[float, ...] = ()
    pieces: tuple[Located, ...] = ()

    def pieces_at(self, times: slice) -> Iterator[tuple[Located, slice]]:
        """Yield each piece that holds some of the snapshots ``times``, and which of its own these are."""
        if not self.pieces:
            yield self, times
            return
        ends = [*accumulate(piece.about.num_frames for piece in self.pieces)]
        for number, own in groupby(range(times.start, times.stop, times.step), lambda time: bisect_right(ends, time)):
            piece, (first, *others) = self.pieces[number], own
            start = first - ends[number] + piece.about.num_frames
            yield piece, slice(start, start + len(others) * times.step + 1, times.step)


def filled_in(path: str, group: Sequence[str]) -> str:
    """Return the path of an array with what its ``*`` stand for."""
    for name in group:
        path = path.replace("*", name, 1)
    return path
