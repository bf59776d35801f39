"""Opens a file that a description covers, checks its arrays, and returns the trajectories in it.

Parameters may come from a table in CSV, with a row for each file or trajectory, and a column for each parameter:

    run,Re,angle
    run_00,100,0.5
    run_01,200,

A row has the name of its file or the path from the table's folder, with or without the suffix; or the name of its trajectory;
or both, such as ``run_00.h5/3``. An empty cell stands for an unknown number.
"""

from __future__ import annotations

import csv
import math
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from dataclasses import field as filled
from functools import lru_cache
from itertools import accumulate, groupby
from pathlib import Path

import numpy as np

from matey.config import DataDescription
from matey.config.description import Axis, FieldSource, GridAxis, ParameterSource, TimeSource
from matey.config.loading import PlainTextError, read_text
from matey.data.arrays import kind_of
from matey.data.coordinates import GRID, UNEVEN_SPACE, UNEVEN_TIME, axes_by_name, even_step, number_in
from matey.data.remote import place, seen_from
from matey.data.stored import FileKind, StoredArray, as_number
from matey.data.trajectories import NO_AXIS, DataError, Part, Trajectory
from matey.mistakes import listed, nearest_name, regular


@dataclass(frozen=True)
class Located:
    """A trajectory and where it lies in its file.

    Attributes:
        about: the trajectory.
        sample: index of the trajectory along the axis of trajectories, where the arrays have one.
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
    arrays: tuple[str, ...]
    given: Mapping[str, str]
    along: Mapping[str, str]
    stored: Mapping[str, StoredArray]
    turned: frozenset[str]
    elsewhere: Mapping[str, tuple[Path, str]] = filled(default_factory=dict)
    times: tuple[float, ...] = ()
    pieces: tuple[Located, ...] = ()

    def place_of(self, array: str) -> tuple[Path, str]:
        """Return the file of an array, and its name there."""
        return self.elsewhere.get(array, (self.about.source, array))

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
    """

    path: Path
    kind: FileKind
    description: DataDescription
    arrays: Mapping[str, StoredArray]
    own: Mapping[str, OpenedFile] = filled(default_factory=dict)
    known: dict[str, np.ndarray] = filled(default_factory=dict)

    @classmethod
    def opened(cls, path: Path, description: DataDescription, own: Mapping[str, OpenedFile]) -> OpenedFile:
        """Describe the arrays of a file.

        Raises:
            DataError: the file is missing, or cannot be read.
        """
        kind = kind_of(path)
        return cls(path, kind, description, kind.arrays(path), own)

    def array_of(self, field: str, source: FieldSource) -> tuple[OpenedFile, str]:
        """Return the file that holds the array of a field, and the array's name in it.

        Raises:
            DataError: the description leaves the name out, and there are several.
        """
        file = self.own.get(field, self)
        if source.array is not None:
            return file, source.array
        if len(file.arrays) != 1:
            raise DataError(
                f"{file.path}: expected the name of the array of {field!r}, since the file has {listed(file.arrays)}; write it "
                f"into the description, fields.{field}.array."
            )
        return file, next(iter(file.arrays))

    def values(self, name: str, use: str = "") -> np.ndarray:
        """Read all values of a small array, such as coordinates, once."""
        if name not in self.known:
            stored = self.find(name, use)
            raw = self.kind.read(self.path, name, (slice(None),) * len(stored.shape))
            self.known[name] = stored.numbers(raw)
        return self.known[name]

    def find(self, name: str, use: str = "", *, may_be_mask: bool = False) -> StoredArray:
        """Return the description of an array of numbers; truth values, read as 0 and 1, count where it may be a mask.

        Raises:
            DataError: the array is missing, holds something else, or cannot be unpacked.
        """
        if name not in self.arrays:
            found = [f"{key} {stored.shape}" for key, stored in self.arrays.items()]
            raise DataError(
                f"{self.path}: expected an array {name!r}{use}, found {listed(found)}.{nearest_name(name, self.arrays)} "
                "Correct the description."
            )
        stored = self.arrays[name]
        if stored.dtype.kind not in ("fiub" if may_be_mask else "fiu"):
            raise DataError(
                f"{self.path}, {name}: expected real numbers{use}, got {stored.dtype}; write them as such, or write a number "
                "into the description."
            )
        stored.check_readable(f"{self.path}, {name}")
        return stored


def describe_file(file: OpenedFile, part: Part | None) -> Iterator[Located]:
    """Yield the trajectories of a file, or the pieces of trajectories that it holds, see ``DataDescription.in_files``.

    Raises:
        DataError: the file does not fit the description.
    """
    description = file.description
    sizes: dict[str, int] = {}
    for field, source in description.fields.items():
        _note_sizes(file, field, source, sizes)
    num_taken = num_frames = sizes.get("time", 1)
    if not description.in_files:
        num_taken = check_frames(description, num_frames, file.path)
    count = sizes.get("trajectory", 1)
    steps = {axis: _spacing(file, axis, sizes) for axis in description.grid}
    grid_z, grid_y, grid_x = (sizes.get(axis, 1) for axis in "zyx")
    spacing_z, spacing_y, spacing_x = (abs(steps.get(axis, 1.0)) for axis in GRID)
    boundary_z, boundary_y, boundary_x = (description.boundary.get(axis, NO_AXIS) for axis in GRID)
    for field, source in description.given.items():
        _note_sizes(file, field, source, dict(sizes))
    of_axes = (*description.spacing.items(), ("time", description.time_step))
    along = {str(axis): name for axis, name in of_axes if isinstance(name, str)}
    keys: dict[str, str] = {}
    of_fields: dict[str, StoredArray] = {}
    elsewhere: dict[str, tuple[Path, str]] = {}
    for field, source in (*description.fields.items(), *description.given.items()):
        holder, name = file.array_of(field, source)
        key = name
        if holder is not file:
            key = f"{source.file}: {name}"  # the same for all files of a trajectory
            elsewhere[key] = holder.path, name
        keys[field], of_fields[key] = key, holder.arrays[name]
    stored = {name: file.find(name) for name in along.values()} | of_fields
    names = tuple(keys[field] for field in description.fields)
    given = {field: keys[field] for field in description.given}
    turned = frozenset(axis for axis, step in steps.items() if step < 0)
    own_name = file.path.parent.name if description.in_files else file.path.stem
    for sample in range(count):
        times = _times(file, num_frames, sample, count)
        about = Trajectory(
            source=file.path,
            name=str(sample) if "trajectory" in sizes else own_name,
            num_frames=num_taken,
            grid=(grid_z, grid_y, grid_x),
            spacing=(spacing_z, spacing_y, spacing_x),
            boundary=(boundary_z, boundary_y, boundary_x),
            time_step=1.0 if description.in_files else _time_step(file, times),
            parameters=dict(_parameters_of(file, sample, count)),
            split=part,
            conserved=description.conserved,
        )
        pieces_times = tuple(map(float, times)) if description.in_files and times is not None else ()
        yield Located(about, sample, names, given, along, stored, turned, elsewhere, pieces_times)


def check_frames(description: DataDescription, num_frames: int, path: Path) -> int:
    """Return how many snapshots of a trajectory with ``num_frames`` are used.

    Raises:
        DataError: no snapshot is used.
    """
    num_taken = len(range(description.first_frame, num_frames, description.stride))
    if num_taken == 0:
        raise DataError(f"{path}: has {num_frames} snapshots, but first_frame is {description.first_frame}; lower it.")
    return num_taken


def _note_sizes(file: OpenedFile, field: str, source: FieldSource, sizes: dict[str, int]) -> None:
    """Add the axis lengths of a field's array to the known ``sizes``; these, and names of its axes, must agree with them."""
    file, name = file.array_of(field, source)
    stored = file.find(name, f" for the field {field!r}", may_be_mask=field in file.description.given)
    axes = file.description.axes_of(source)
    own: dict[Axis, int] = dict(zip(axes, stored.shape, strict=False))
    shared = {axis: size for axis, size in own.items() if axis != "component"}
    fits = len(axes) == len(stored.shape) and 0 not in stored.shape
    if not fits or any(sizes.setdefault(axis, size) != size for axis, size in shared.items()):
        expected = ", ".join(f"{axis} {sizes.get(axis, '')}".strip() for axis in axes)
        raise DataError(
            f"{file.path}, {name}: expected the axes ({expected}) for the field {field!r}, got the shape {stored.shape}"
            f"{' on ' + ', '.join(stored.axes) if stored.axes else ''}; correct the axes of the description, which without "
            "time are those of a single snapshot; or average a field of a staggered grid to the cells first (docs/own_data.md)."
        )
    if stored.axes and (told := axes_by_name(stored.axes, axes)):
        raise DataError(
            f"{file.path}, {name}: its axes are called {', '.join(stored.axes)}, and the description has "
            f"{', '.join(axes)}; write axes: [{', '.join(told)}] for {field!r}."
        )
    if source.index is not None and source.index >= own["component"]:
        raise DataError(
            f"{file.path}, {name}: {field!r} is component {source.index} in the description, but there are "
            f"{own['component']}, counted from 0; correct the description."
        )


def _spacing(file: OpenedFile, axis: GridAxis, sizes: Mapping[str, int]) -> float:
    """Return the cell spacing along an axis, negative where coordinates decrease; ``sizes`` holds the lengths of all axes."""
    name, size = file.description.spacing[axis], sizes[axis]
    if isinstance(name, float):
        return name
    places = file.values(name, f" for the coordinates of {axis}")
    if places.size != size:
        raise DataError(
            f"{file.path}, {name}: expected {size} coordinates of {axis}, got the shape {places.shape}; correct the order of "
            f"the axes; or, where these are the edges of the cells, write the size of a cell, such as {axis}: 0.1; curvilinear "
            "grids are not supported."
        )
    sign = -1.0 if size > 1 and places[-1] < places[0] else 1.0
    return sign * even_step(sign * places, f"{file.path}, {name}", UNEVEN_SPACE, "resample the data on an even grid")


def _times(file: OpenedFile, size: int, sample: int, count: int) -> np.ndarray | None:
    """Return the times of all snapshots of a trajectory or piece, None where neither an array nor an attribute gives them."""
    source = file.description.time_step
    if isinstance(source, TimeSource) and source.attribute is not None:
        found = file.kind.numbers(file.path, "")
        if source.attribute not in found:
            raise DataError(
                f"{file.path}: expected an attribute {source.attribute!r} with the time of the snapshot, found "
                f"{listed(found)}; name another in time_step, or give the time between snapshots."
            )
        return np.array([found[source.attribute]])
    if not isinstance(source, str):
        return None
    times = file.values(source, " of the times")
    times = times[sample] if times.shape == (count, size) else times
    if times.shape != (size,):
        raise DataError(
            f"{file.path}, {source}: expected {size} times, one for each snapshot, got the shape {times.shape}; correct the "
            "axes or time_step."
        )
    return times


def _time_step(file: OpenedFile, times: np.ndarray | None) -> float:
    """Return the time between the snapshots that are used."""
    description = file.description
    if times is None:
        assert isinstance(description.time_step, float)
        return description.time_step * description.stride
    taken = times[description.first_frame :: description.stride]
    label = f"{file.path}, {description.time_step}"
    return even_step(taken, label, UNEVEN_TIME, "write snapshots at even times, or give a time_step")


def _parameters_of(file: OpenedFile, sample: int, count: int) -> Iterator[tuple[str, float]]:
    """Yield the parameters of a trajectory that lie in its file or its name; attributes that the file lacks are left out."""
    for name, given in file.description.parameters.items():
        if isinstance(given, float):
            yield name, given
        elif given.attribute is not None:
            first = next((each.array for field, each in file.description.fields.items() if field not in file.own), None)
            of_array = file.kind.attributes(file.path, first) if first and first in file.arrays else {}
            found = of_array | file.kind.attributes(file.path, "")
            if given.attribute in found:
                label = f"{file.path}, {given.attribute}"
                yield name, _number_of_one(found[given.attribute], label, name, sample, count)
        elif given.in_name is not None:
            if (number := number_in(str(file.path), given.in_name)) is None:
                raise DataError(
                    f"{file.path}: expected the parameter {name!r} in its name as {given.in_name!r}, {{}} for the number; "
                    "correct in_name, or rename the files."
                )
            yield name, number
        elif given.array is not None:
            values = file.values(given.array, f" of the parameter {name!r}")
            yield name, _number_of_one(values, f"{file.path}, {given.array}", name, sample, count)


def _number_of_one(value: object, label: str, name: str, sample: int, count: int) -> float:
    """Return a trajectory's parameter from an attribute or array of one number for all trajectories, or one for each."""
    if (number := as_number(value)) is not None:
        return number
    values = np.asarray(value)
    if values.size != count or values.dtype.kind not in "fiu":
        raise DataError(
            f"{label}: expected one number, or one for each of {count} trajectories, for the parameter {name!r}, got "
            f"{values.tolist()!r:.60}; write it as a number, or leave it out of parameters."
        )
    return float(values.reshape(-1)[sample])


def parameters_in_tables(
    sources: Mapping[str, float | ParameterSource], about: Trajectory
) -> Iterator[tuple[str, float]]:
    """Yield the parameters of a trajectory that a description takes from tables, named by full paths.

    Raises:
        DataError: a table cannot be read, or lacks a column, row or number.
    """
    for name, source in sources.items():
        if isinstance(source, ParameterSource) and source.table is not None:
            path = place(source.table)
            try:
                number = _in_table(path, _rows(path, path.stat().st_mtime_ns), source.column or name, about)
            except OSError as error:
                raise DataError(
                    f"{path} cannot be read ({error.strerror}), where the description has a table of parameters; put it "
                    "there, or correct 'table'."
                ) from None
            except (PlainTextError, csv.Error) as error:
                raise DataError(f"{path} {error}.") from None
            if not math.isnan(number):
                yield name, number


def _in_table(path: Path, rows: Mapping[str, Mapping[str, str]], column: str, about: Trajectory) -> float:
    """Return a trajectory's number in a column of a table, NaN where its cell is empty."""
    source = seen_from(path.parent, about.source)
    files = (source, source.removesuffix(about.source.suffix), about.source.name, about.source.stem)
    names = (*(f"{file}/{about.name}" for file in files), *files, about.name)
    row = next((rows[name] for name in names if name in rows), None)
    if row is None:
        wanted = " or ".join(dict.fromkeys(map(repr, (*files[2:], about.name))))
        raise DataError(
            f"{path}: expected a row {wanted} for {about.label}, found {listed(rows)}; add it, with empty cells where nothing "
            "is known."
        )
    if column not in row:
        raise DataError(
            f"{path}: expected a column {column!r} of a parameter, found {listed(row)}.{nearest_name(column, row)} Correct the "
            "table, or name another 'column' in the description."
        )
    try:
        return float(row[column] or math.nan)
    except ValueError:
        raise DataError(
            f"{path}: expected a number in the column {column!r} of {about.label}, got {row[column][:60]!r}; correct it, or "
            "leave it out where it is not known."
        ) from None


@lru_cache(maxsize=8)  # many files ask for the same table
def _rows(path: Path, changed: int) -> dict[str, dict[str, str]]:
    """Return the cells of a table by the name of the row and that of the column."""
    lines = [[cell.strip() for cell in line] for line in csv.reader(read_text(regular(path)).splitlines(), strict=True)]
    header, *lines = [line for line in lines if any(line)] or [[]]
    rows: dict[str, dict[str, str]] = {}
    for line in lines:
        if len(header) < 2 or len(line) != len(header) or line[0] in rows:
            raise PlainTextError(
                "is not a table: expected a first line with the names of columns, divided by commas, and a line for each row, "
                f"once, the name of its file or trajectory first; got {','.join(line)[:60]!r} below {','.join(header)[:60]!r}"
            )
        rows[line[0]] = dict(zip(header[1:], line[1:], strict=True))
    return rows
