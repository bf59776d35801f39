"""Reads files of any layout by a user's description: HDF5, netCDF, Zarr stores and ``.npy`` arrays.

The description is a YAML beside the data or a part of the run YAML, `matey.config.DataDescription`:

    system: advection_diffusion
    files: "runs/*.nc"                        # from the folder of this file; or {train: ..., valid: ..., test: ...}
    axes: [trajectory, time, y, x]            # of the arrays; without the first, each file is one trajectory
    fields:
      concentration: {array: c, unit: mol/m^3}
      velocity_x: {array: velocity, axes: [trajectory, time, y, x, component], index: 0}
    spacing: {y: 0.05, x: x}                  # a number, or the array of the coordinates
    time_step: time
    boundary: {y: wall, x: periodic}
    parameters: {viscosity: {attribute: nu}}  # a number, an attribute, an array with one per trajectory, a table's column
    given:                                    # known beforehand, never predicted; here constant in time
      diffusivity: {array: D, axes: [trajectory, y, x]}

Without an axis ``time``, each file is a snapshot (`put_together`).
Coordinates must be evenly spaced. Along a grid axis whose coordinates decrease, the data is flipped.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from dataclasses import field as filled
from itertools import chain
from pathlib import Path

import numpy as np
from einops import rearrange

from matey.config import DataDescription
from matey.config.description import Axis, TimeSource
from matey.data import coordinates
from matey.data.arrays import KINDS
from matey.data.described_file import Located, OpenedFile, check_frames, describe_file, parameters_in_tables
from matey.data.hdf5 import opened_once
from matey.data.remote import place
from matey.data.stored import as_text
from matey.data.trajectories import Cells, Coordinates, DataError, Part, Trajectory, TrajectorySet


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
    own: Mapping[Path, Mapping[str, Path]] = filled(default_factory=dict)

    @property
    def path(self) -> Path:
        """The first path."""
        return self.paths[0]


class DescribedFiles(TrajectorySet):
    """The trajectories in the files of a description."""

    def __init__(
        self, description: DataDescription, files: Sequence[DataFile], parts: Sequence[DescribedFiles] = ()
    ) -> None:
        """Describe the trajectories of ``files``, after those of ``parts`` that have the same description.

        Raises:
            DataError: a file does not fit the description, or the files state different units.
        """
        kinds = {file: name for part in parts for file, name in part._kinds.items()}
        located = [each for part in parts for each in part._located]
        for each in files:
            pieces: list[Located] = []
            shared: dict[Path, OpenedFile] = {}  # files of single fields, each opened once
            for path in each.paths:
                with opened_once(path):
                    own = {
                        field: shared.get(other) or shared.setdefault(other, OpenedFile.opened(other, description, {}))
                        for field, other in each.own.get(path, {}).items()
                    }
                    file = OpenedFile.opened(path, description, own)
                    kinds |= {opened.path: opened.kind.name for opened in (file, *own.values())}
                    pieces += describe_file(file, each.part)
            whole = put_together(description, pieces) if description.in_files else pieces
            for one in whole:
                parameters = one.about.parameters | dict(parameters_in_tables(description.parameters, one.about))
                located.append(replace(one, about=replace(one.about, parameters=parameters)))
        self.system, self.fields = description.system, tuple(description.fields)

        self.description = description
        self._kinds: dict[Path, str] = kinds
        self._located: list[Located] = located
        self.trajectories: tuple[Trajectory, ...] = tuple(each.about for each in located)
        self.units = self._units()
        self.given = tuple(description.given)
        self.given_in_time = frozenset(name for name, source in description.given.items() if description.varies(source))

    def names_of(self, field: str) -> dict[str, str]:
        """Return the names in the first file; those of an array of several fields name none of them."""
        if self.description.fields[field].index is not None:
            return {}
        piece = next(self._pieces)
        path, array = piece.place_of(piece.arrays[self.fields.index(field)])
        own = KINDS[self._kinds[path]].attributes(path, array)
        return {key: text for key in ("long_name", "standard_name") if (text := as_text(own.get(key)))}

    @property
    def sources(self) -> tuple[Path, ...]:
        """The files of the fields, each once, in order; a trajectory may have several."""
        of_each = ((piece.about.source, *(piece.place_of(name)[0] for name in piece.arrays)) for piece in self._pieces)
        return tuple(dict.fromkeys(chain.from_iterable(of_each)))

    @property
    def inputs(self) -> tuple[Path, ...]:
        """The files of the fields and of the given fields, and the tables of parameters."""
        given = (piece.place_of(array)[0] for piece in self._pieces for array in piece.given.values())
        return tuple(dict.fromkeys((*self.sources, *given, *map(place, self.description.tables))))

    @property
    def _pieces(self) -> Iterator[Located]:
        """All trajectories, or the pieces of those that lie in several."""
        return (piece for located in self._located for piece in located.pieces or (located,))

    @property
    def told(self) -> str:
        """The description as JSON."""
        return self.description.model_dump_json()

    def _read_coordinates(self, axis: str, trajectories: Sequence[int]) -> Iterator[Coordinates | None]:
        arrays: dict[tuple[Path, str], np.ndarray] = {}  # an array that many trajectories share is read once
        for located in (self._located[number] for number in trajectories):
            if axis == "time" and located.times:
                yield self._joined_times(located)
                continue
            if (name := located.along.get(axis)) is None:
                yield None
                continue
            stored, file = located.stored[name], located.about.source
            if (file, name) not in arrays:
                raw = KINDS[self._kinds[file]].read(file, name, (slice(None),) * len(stored.shape))
                arrays[file, name] = stored.numbers(raw)
            values = arrays[file, name]
            if axis == "time":
                values = values[located.sample] if values.ndim > 1 else values
                values = values[self._times(0, located.about.num_frames)]
            values = values[::-1] if axis in located.turned else values
            yield Coordinates(values, stored.unit or "?", stored.calendar, name.rpartition("/")[2])

    def _joined_times(self, located: Located) -> Coordinates:
        """Return the times of the snapshots used of a trajectory that lies in several pieces."""
        stored = located.stored.get(located.along.get("time", ""))
        values = np.array(located.times)[self._times(0, located.about.num_frames)]
        if isinstance(step := self.description.time_step, TimeSource) and step.date_in_name:
            return Coordinates(values, coordinates.UNIT, coordinates.CALENDAR)
        return Coordinates(values, (stored and stored.unit) or "?", stored.calendar if stored else "")

    def order(self, trajectory: int) -> tuple[int, int, int]:
        """Return the order of the grid axes of the first field's array."""
        return coordinates.order_of(self.description.axes_of(next(iter(self.description.fields.values()))))

    def _read_frames(self, trajectory: int, start: int, stop: int, cells: Cells) -> np.ndarray:
        pieces = self._located[trajectory].pieces_at(self._times(start, stop))
        frames = np.concatenate([self._read_piece(piece, times, cells) for piece, times in pieces])
        for name, value in self.description.mask.items():
            hidden = self._read_given(trajectory, name, start, stop, cells) == value
            frames = np.where(hidden[:, None], np.nan, frames)
        return frames

    def _read_piece(self, located: Located, times: slice, cells: Cells) -> np.ndarray:
        """Read snapshots of the fields, ``(t, f, z, y, x)``."""
        frames: dict[int, np.ndarray] = {}
        for (name, axes), members in self._arrays(located).items():
            indices = [index for _, index in members]
            values = self._read_array(located, name, axes, times, cells, slice(min(indices), max(indices) + 1))
            for position, index in members:
                own, scale = values[index - min(indices)], self.description.fields[self.fields[position]].scale
                frames[position] = own if scale == 1 else own.astype(np.float64) * scale
        return np.stack([frames[position] for position in range(len(self.fields))], axis=1)  # (t, f, z, y, x)

    def _read_given(self, trajectory: int, name: str, start: int, stop: int, cells: Cells) -> np.ndarray:
        located, source = self._located[trajectory], self.description.given[name]
        index, axes = source.index or 0, self.description.axes_of(source)
        times = self._times(start, stop)
        pieces = located.pieces_at(times) if name in self.given_in_time else [(located, times)]
        component = slice(index, index + 1)
        read = [self._read_array(piece, piece.given[name], axes, own, cells, component) for piece, own in pieces]
        (values,) = np.concatenate(read, axis=1)
        return values if source.scale == 1 else values.astype(np.float64) * source.scale

    def _times(self, start: int, stop: int) -> slice:
        """Return the slice of the file's snapshots that frames ``start`` to ``stop - 1`` are."""
        stride, first = self.description.stride, self.description.first_frame
        return slice(first + start * stride, first + (stop - 1) * stride + 1, stride)

    def _arrays(self, located: Located) -> dict[tuple[str, tuple[Axis, ...]], list[tuple[int, int]]]:
        """Return the positions of fields and their components by the array that holds them, so that each array is read once."""
        arrays: dict[tuple[str, tuple[Axis, ...]], list[tuple[int, int]]] = {}
        for position, (name, source) in enumerate(zip(located.arrays, self.description.fields.values(), strict=True)):
            arrays.setdefault((name, self.description.axes_of(source)), []).append((position, source.index or 0))
        return arrays

    def _read_array(
        self,
        located: Located,
        name: str,
        axes: tuple[Axis, ...],
        times: slice,
        cells: Cells,
        component: slice,
    ) -> np.ndarray:
        """Read frames ``(component, t, z, y, x)`` of an array; axes that the array lacks have length 1."""
        about = located.about
        picked: dict[Axis, int | slice] = {"trajectory": located.sample, "time": times, "component": component}
        for axis, size, side in zip(coordinates.GRID, about.grid, cells, strict=True):
            picked[axis] = slice(size - side.stop, size - side.start) if axis in located.turned else side
        index = tuple(picked[axis] for axis in axes)
        stored, (path, own_name) = located.stored[name], located.place_of(name)
        values = stored.packing.unpacked(KINDS[self._kinds[path]].read(path, own_name, index))
        left = [axis for axis in axes if axis != "trajectory"]
        whole = [axis if axis in left else "1" for axis in ("component", "time", *coordinates.GRID)]
        values = rearrange(values, f"{' '.join(left)} -> {' '.join(whole)}")
        turned = tuple(slice(None, None, -1) if axis in located.turned else slice(None) for axis in "zyx")
        return values[:, :, *turned]

    def _units(self) -> tuple[str, ...]:
        """Return the units of the fields from the description or, where it has none, from the files.

        Raises:
            DataError: files state different units for a field.
        """
        found = []
        for position, (field, source) in enumerate(self.description.fields.items()):
            own: dict[str, Located] = {}
            if source.unit == "?":
                for piece in self._pieces:
                    own.setdefault(piece.stored[piece.arrays[position]].unit, piece)
                own.pop("", None)
            if len(own) > 1:
                first, other, *_ = own.items()
                raise DataError(
                    f"{field}: expected one unit, got {first[0]!r} in {_label(first[1])} and {other[0]!r} in "
                    f"{_label(other[1])}; write the files in one, or, where both mean the same, fields.{field}.unit."
                )
            scaled = "" if source.scale == 1 else f"{1 / source.scale:.7g} "
            unit = next(iter(own), "") or "?"
            found.append(source.unit if source.unit != "?" else "?" if unit == "?" else f"{scaled}{unit}")
        return tuple(found)


def put_together(description: DataDescription, pieces: Sequence[Located]) -> list[Located]:
    """Return the trajectories that consist of these pieces, which come in the order of time.

    Args:
        description: description of the files.
        pieces: pieces of one trajectory, or of all trajectories in the same files.

    Raises:
        DataError: a piece does not fit the others, or one is missing between them.
    """
    found: dict[int, list[Located]] = {}
    for piece in pieces:
        found.setdefault(piece.sample, []).append(piece)
    if len({len(each) for each in found.values()}) > 1:
        raise DataError(
            f"{_label(pieces[0])}: expected as many trajectories in all files that follow each other in time."
        )
    return [_joined(description, each) for each in found.values()]


def _joined(description: DataDescription, pieces: Sequence[Located]) -> Located:
    first = pieces[0]
    for piece in pieces[1:]:
        _check_alike(first, piece)
    num_frames = check_frames(description, sum(piece.about.num_frames for piece in pieces), first.about.source)
    step = description.time_step
    if isinstance(step, TimeSource) and step.number_in_name is not None:
        times = tuple(number * step.number_in_name for number in _numbers(pieces))
    elif isinstance(step, TimeSource) and step.date_in_name is not None:
        times = tuple(coordinates.date_in(_label(piece), step.date_in_name) for piece in pieces)
    else:
        times = tuple(time for piece in pieces for time in _times(first, piece))
    taken = _numbers(pieces) if isinstance(step, float) else times[description.first_frame :: description.stride]
    remedy = (
        "add the snapshot if one is missing there; else write even times, or give a time_step or what holds the times"
    )
    even = coordinates.even_step(
        np.array(taken), f"{_label(first)} and what follows it", coordinates.UNEVEN_TIME, remedy
    )
    time_step = step * description.stride if isinstance(step, float) else even
    about = replace(first.about, num_frames=num_frames, time_step=time_step)
    return replace(first, about=about, times=times, pieces=tuple(pieces))


def _check_alike(first: Located, piece: Located) -> None:
    ours, theirs = first.about, piece.about
    is_near = (
        math.isclose(a, b, rel_tol=coordinates.UNEVEN_SPACE) for a, b in zip(ours.spacing, theirs.spacing, strict=True)
    )
    if ours.grid != theirs.grid or not all(is_near) or first.turned != piece.turned:
        raise DataError(
            f"{_label(piece)}: expected the grid (z, y, x) = {ours.grid} with cells of {ours.spacing}, as in {_label(first)}, "
            f"got {theirs.grid} with {theirs.spacing}; all snapshots of a trajectory need one grid: interpolate them to it."
        )


def _times(first: Located, piece: Located) -> tuple[float, ...]:
    """Return the times of a piece in the unit and from the starting date of the first piece."""
    if "time" not in piece.along:
        return piece.times
    ours, own = (each.stored[each.along["time"]] for each in (first, piece))
    times = coordinates.counted_from(piece.times, own, ours)
    if times is None:
        units = [f"{each.unit} {each.calendar}".strip() for each in (own, ours)]
        raise DataError(
            f"{_label(piece)}: its times are in {units[0]!r}, those of {_label(first)} in {units[1]!r}; write them in one unit "
            "and from one date, or give a time_step."
        )
    return times


def _numbers(pieces: Sequence[Located]) -> list[float]:
    """Return the number that tells the name of each piece from the others.

    Raises:
        DataError: the names differ in more than one number.
    """
    numbers = coordinates.numbers_in([_label(piece) for piece in pieces])
    if numbers is None:
        raise DataError(
            f"{_label(pieces[0])} to {_label(pieces[-1])}: expected names that differ in one number, such as u_0001 and "
            "u_0002, as the snapshots of a trajectory. Write a * for that number into 'files' and others for what tells "
            "trajectories apart, such as run_*/u_*.npy; or name the times that the files hold in time_step."
        )
    return numbers


def _label(piece: Located) -> str:
    return str(piece.about.source)
