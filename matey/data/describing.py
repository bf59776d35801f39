"""Guesses the description of a file of unknown layout, and marks the questions that only its owner can answer.

Entries that cannot be guessed stand as TODO in the YAML, with the evidence for each answer. The reader refuses the description
until every TODO is answered.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matey.config.description import TODO, Axis
from matey.data.arrays.kinds import kind_of
from matey.data.arrays.stored import FileKind, StoredArray
from matey.data.axis_names import COUNTERS, GRID, NO_TIMES, ROLES, axis_name, role_of
from matey.data.dates import is_text
from matey.data.guess import Guess
from matey.data.guessed_axes import NUMBERED, axes_by_name, guess_axes, suggested
from matey.data.guessed_coordinates import Line, axis_of_mesh, has_dates, hint_on_ends, is_coordinate
from matey.data.guessed_fields import (
    constant_arrays,
    field_name,
    likely_fields,
    named_on_our_axes,
    plain_name,
    sources,
)
from matey.data.guessed_files import OtherFiles
from matey.data.guessed_snapshots import (
    Snapshots,
    in_groups,
    in_numbered_files,
    of_one_snapshot,
    said_of_blocks,
    said_of_others,
    snapshot_axes,
)
from matey.data.staggered import said_of_between
from matey.data.trajectories import DataError
from matey.mistakes import listed

_MOST_ATTRIBUTES = 12  # if there are more, none is taken for a parameter


def guess_description(path: Path, beside: Path) -> Guess:
    """Guess the description of a file.

    Args:
        path: the file, or Zarr store.
        beside: folder of the future description, from which its ``files`` start.

    Raises:
        DataError: the file cannot be read, or holds no array that could be a field.
    """
    kind = kind_of(path)
    held = kind.arrays(path)
    arrays = {name: stored for name, stored in held.items() if stored.dtype.kind in "fiub" or has_dates(name, stored)}
    for name, stored in arrays.items():
        stored.check_claim(f"{path}, {name}", path.stat().st_size)
    patterns = in_numbered_files(arrays, path.stem) or in_groups(arrays)
    members = {pattern: arrays[names[0]] for pattern, names in patterns.items()}
    if said := said_of_blocks(arrays):
        raise DataError(f"{path}: {said}")
    likely = likely_fields(members)
    for name, stored in likely.items() if all(each.problem for each in likely.values()) else ():
        stored.check_readable(f"{path}, {patterns[name][0]}")
    fields = {n: stored for n, stored in likely.items() if axis_of_mesh(kind, path, patterns[n][0], stored) is None}
    if not fields:
        raise DataError(
            f"{path}: expected an array of two axes or more, of real or packed numbers, as a field, found "
            f"{listed(f'{name} {stored.outline}' for name, stored in held.items())}."
        )
    coordinates = {name: max(stored.shape) for name, stored in members.items() if is_coordinate(name, stored)}
    measured = {
        name.rpartition("/")[2] for name, each in members.items() if len(each.shape) == 1 and each.dtype.kind == "f"
    }
    axes = {name: guess_axes(stored, coordinates, measured) for name, stored in fields.items()}
    snapshots = Snapshots.around(path, beside, patterns[next(iter(fields))])
    if snapshots.count > 1 and not all(axes.values()):
        axes = {name: snapshot_axes(stored, coordinates) for name, stored in fields.items()}
    first = _besides_components(axes[max(fields, key=lambda name: math.prod(fields[name].shape))])
    fields = {name: stored for name, stored in fields.items() if _besides_components(axes[name]) == first}
    axes = {name: axes[name] for name in fields}
    own = [*axes.values()]
    is_alone = len(fields) == 1 and "component" not in (own[0] or [])
    others = OtherFiles.beside(path, kind, next(iter(fields.values())).shape) if is_alone else OtherFiles()
    known = own[0] if own[0] and all(own) else []
    return _Guesser(path, kind, members, coordinates, fields, axes, known, patterns, snapshots, others, beside).guess()


@dataclass(frozen=True)
class _Guesser:
    path: Path
    kind: FileKind
    arrays: Mapping[str, StoredArray]
    coordinates: Mapping[str, int]
    fields: Mapping[str, StoredArray]
    axes: Mapping[str, list[Axis] | None]
    known: list[Axis]
    patterns: Mapping[str, list[str]]
    snapshots: Snapshots
    others: OtherFiles
    beside: Path

    @property
    def first(self) -> str:
        """Name of the first field's array."""
        return next(iter(self.fields))

    @property
    def field(self) -> StoredArray:
        """The first field."""
        return self.fields[self.first]

    def guess(self) -> Guess:
        first, known = self.first, self.known
        files = self.snapshots.files if (apart := self.snapshots.said_of(known, self.field)) else self.snapshots.file
        fields = named_on_our_axes(own := self._sources(files), self._theirs)
        turned = "; components are along our axes: y is up" if [*fields] != [*own] else ""
        grid = [axis for axis in GRID if axis in known]
        comments: dict[str, str] = {
            "system": "a name for the equations, the same for all data of this kind",
            "files": "from the folder of this file; a glob such as '*.nc', or {train: ..., valid: ..., test: ...}",
            "fields": "name in the model's vocabulary: where it lies; rename as you like" + turned,
        }
        sizes = {axis: found for axis in grid if (found := self._cell_size(axis))}
        along = {axis: name for axis in grid if (name := self._coordinate(axis))}
        lines = {axis: self._line(axis, name) for axis, name in along.items()}
        steps = {axis: along[axis] for axis, line in lines.items() if line.is_even}
        spacing: Any = {axis: steps.get(axis) or sizes.get(axis, ("", TODO))[1] for axis in grid} or TODO
        pattern = self.patterns[first][0]
        in_each = self.snapshots.time(self.kind, self.path, self.arrays, first, pattern) if apart else None
        has_time, in_files = "time" in known, bool(apart) and files != self.snapshots.file
        concat = {"concat": "time"} if apart and (has_time or (in_files and "*" in first)) else {}
        time = self._coordinate("time") or (in_each if isinstance(in_each, str) or not has_time else None)
        boundary: Any = dict.fromkeys(grid, TODO) or TODO
        if not known:
            shape = self.field.shape
            often = f"[{suggested(shape, in_groups='*' in first)}]{of_one_snapshot(shape) if apart else ''}"
            comments["axes"] = f"the arrays are {shape}: such as {often}, in the order of the file"
            comments["spacing"] = "for each grid axis, the cell size or the array of coordinates: {y: 0.1, x: x}"
            comments["boundary"] = "for each grid axis: periodic, open, wall, no_flux or mixed"
        for axis in grid:
            hint = hint_on_ends(self.kind, self.path, (first, pattern), self.field, known, axis)
            comments[f"boundary.{axis}"] = f"periodic, open, wall, no_flux or mixed{hint}"
            if axis in sizes and spacing[axis] == sizes[axis][1]:
                comments[f"spacing.{axis}"] = f"the file's attribute {sizes[axis][0]}"
            if spacing[axis] == TODO:
                uneven = (
                    f"{along.get(axis)} is uneven, which is not supported: interpolate the fields, or count cells by 1"
                )
                comments[f"spacing.{axis}"] = uneven if axis in along else "size of a cell, or the array of coordinates"
            if axis in lines and lines[axis].is_circle:
                boundary[axis], comments[f"boundary.{axis}"] = "periodic", f"{along[axis]} goes round the globe"
        if not time:
            in_names = "; or {number_in_name: UNIT}, or {date_in_name: '%Y%m%d'}" if in_files and not has_time else ""
            comments["time_step"] = f"time between snapshots, or the array of times{in_names}"
        tree: dict[str, Any] = {
            "system": TODO,
            "files": files,
            "axes": known or TODO,
            **concat,
            "fields": fields,
            "spacing": spacing,
            "time_step": time or TODO,
            "boundary": boundary,
        }
        used = {*spacing.values()} if known else set()
        if given := dict(self._given(used)):
            tree["given"] = given
            comments["given"] = "constant in time, so known beforehand and never predicted; remove what is neither"
        if parameters := {name: of for name, of in self._parameters() if ROLES.get(name.lower()) != "time"}:
            tree["parameters"] = parameters
            comments["parameters"] = "numbers that set trajectories apart; remove what does not"
        left_in = [*(source["array"] for source in given.values()), *used]
        return Guess(tree, comments, self._notes(left_in, apart, files))

    def _coordinate(self, axis: Axis) -> str | None:
        """Return the coordinate array of an axis: the one that the file ties to it, else one of fitting name and length."""
        if axis not in self.known:
            return None
        stored, position = self.field, self.known.index(axis)
        names = [stored.axes[position]] if stored.axes else []
        ours, theirs = [role for role in GRID if role in self.known], self._theirs
        named_there: dict[Axis, Axis] = dict(zip(ours, theirs, strict=True)) if len(ours) == len(theirs) else {}
        role = named_there.get(axis, axis)
        size, of_axis = stored.shape[position], [name for name in self.arrays if role_of(name) == role]
        alike = [name for name in of_axis if self.coordinates.get(name) == size]
        dates = [name for name in of_axis if is_text(self.arrays[name]) and self.arrays[name].shape[:1] == (size,)]
        is_vector = {name: len(each.shape) == 1 for name, each in self.arrays.items()}
        named = [name for name in names if name in self.coordinates or is_vector.get(name)]
        tied = [stored.scales[position]] if stored.scales and self.patterns[self.first] == [self.first] else []
        meshes = [name for name in of_axis if axis in GRID and self._is_mesh(name, axis)]
        found = [name for name in (*named, *tied, *alike, *dates, *meshes) if name and axis_name(name) not in NO_TIMES]
        return next(iter(sorted(found, key=lambda name: axis_name(name) in COUNTERS)), None)

    @property
    def _theirs(self) -> list[Axis]:
        """The file's names of the grid axes, as far as its coordinates tell; x, z of a plane are our x, y."""
        return [role for role in GRID if role in map(role_of, self.coordinates)]

    def _is_mesh(self, name: str, axis: Axis) -> bool:
        """Whether an array holds a coordinate for each cell, which changes along ``axis`` alone."""
        stored = self.arrays[name]
        grid = [(role, size) for role, size in zip(self.known, self.field.shape, strict=True) if role in GRID]
        if stored.shape != tuple(size for _, size in grid):
            return False
        along = axis_of_mesh(self.kind, self.path, self.patterns[name][0], stored)
        return along is not None and grid[along][0] == axis

    def _line(self, axis: Axis, name: str) -> Line:
        size = self.field.shape[self.known.index(axis)]
        return Line.read(self.kind, self.path, self.patterns.get(name, [name])[0], self.arrays.get(name), size)

    def _cell_size(self, axis: Axis) -> tuple[str, float] | None:
        """Return name and value of an attribute such as DX, of the file or the array, with the cell size along an axis."""
        steps, names, position = self.field.steps, self.field.axes, self.known.index(axis)
        if steps and (size := steps[position]) > 0:
            return "gridSpacing", float(f"{size:.7g}")
        theirs = f"d{(names and role_of(names[position])) or axis}"
        found = self.kind.numbers(self.path, "").items()
        return next(((name, float(f"{size:.7g}")) for name, size in found if name.lower() == theirs and size > 0), None)

    def _sources(self, files: str) -> dict[str, Any]:
        own = dict(sources(self.fields, self.axes, self.known))
        if not self.others.arrays:
            return own
        (source,) = own.values()
        found = {field_name(self.others.word): source}
        for word, (array, names) in self.others.arrays.items():
            name = word if field_name(word) in found else field_name(word)
            turned = names and self.known and axes_by_name(names, self.known)
            extra = {"axes": turned} if turned else {}
            found[name] = {"file": self.others.file_of(word, files), "array": array, **extra}
        return found

    def _given(self, used: Collection[object]) -> Iterator[tuple[str, Any]]:
        """Yield the arrays on the grid that are constant in time, except the coordinate arrays that are ``used``."""
        if self.known:
            others = {*self.fields, *map(str, used), *self.coordinates}
            for name, axes in constant_arrays(self.arrays, self.field, self.known, others):
                yield field_name(name), {"array": name, "axes": axes}

    def _parameters(self) -> Iterator[tuple[str, Any]]:
        count = dict(zip(self.known, self.field.shape, strict=False)).get("trajectory", 1)
        for name, other in self.arrays.items():
            is_one = math.prod(other.shape) == 1 or (count > 1 and other.shape == (count,))
            is_number = is_one and other.dtype.kind != "b" and name not in self.coordinates
            if is_number and [*map(role_of, other.axes)] != ["time"]:
                yield plain_name(name), {"array": name}
        attributes = self._attributes()
        if len(attributes) <= _MOST_ATTRIBUTES:
            yield from ((name, {"attribute": name}) for name in attributes)

    def _attributes(self) -> list[str]:
        """Return the names of the file's numeric attributes, except cell sizes."""
        sizes = [self._cell_size(axis) for axis in self.known if axis in GRID]
        left_out = {found[0] for found in sizes if found}
        return [
            name
            for name in self.kind.numbers(self.path, "")
            if not name.startswith(("_", "openPMD")) and name not in left_out and role_of(name) != "time"
        ]

    def _notes(self, left_in: Collection[object], apart: str, files: str) -> list[str]:
        others = {
            name: stored
            for name, stored in self.arrays.items()
            if name not in (*self.fields, *self.coordinates, *left_in)
        }
        constant = [
            f"{name} {stored.shape}"
            for name, stored in others.items()
            if len(stored.shape) > 1 and not is_text(stored) and not said_of_between({name: stored}, self.field)
        ]
        notes = [f"What is in {self.path.name}, as far as it can be told. Answer each {TODO}; docs/data.md says more."]
        notes += filter(None, (apart, said_of_others(self.snapshots.file, files, self.beside)))
        notes += [self.others.said] if self.others.arrays else []
        notes += [NUMBERED] if sum(plain_name(name).isdigit() for name in self.fields) > 1 else []
        if len(attributes := self._attributes()) > _MOST_ATTRIBUTES:
            notes.append(
                f"Attributes that set trajectories apart belong into parameters; there are {listed(attributes)}."
            )
        notes += filter(None, [said_of_between(others, self.field)])
        return notes + ([f"Left out, of other shapes than the fields: {listed(constant)}."] if constant else [])


def _besides_components(axes: list[Axis] | None) -> set[Axis]:
    return {axis for axis in axes or [] if axis != "component"}
