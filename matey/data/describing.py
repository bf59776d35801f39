"""Guesses the description of a file of unknown layout, and marks the questions that only its owner can answer.

Entries that cannot be guessed stand as TODO in the YAML, with the evidence for each answer. The reader refuses the description
until every TODO is answered.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from matey.config.description import TODO, Axis
from matey.data.arrays import kind_of
from matey.data.coordinates import (
    COMPONENTS,
    COUNTERS,
    GRID,
    MOST_COMPONENTS,
    NO_TIMES,
    ROLES,
    UNEVEN_SPACE,
    axis_name,
    even_step,
    role_of,
)
from matey.data.dates import date_pattern, is_text, place_of_last, seconds_of
from matey.data.remote import matches, seen_from, within
from matey.data.stored import FileKind, StoredArray
from matey.data.trajectories import DataError
from matey.mistakes import listed, printable

_MOST_ATTRIBUTES = 12  # if there are more, none is taken for a parameter
_MOST_CELLS = 2**24  # of an array that is read whole to look at its values
_LEAST = 3  # fewer files are not taken for snapshots
_TIMES = ("time", "times", "t", "sim_time")
_DATE = re.compile(r"(?<!\d)(?:19|20)\d\d([-_]?)\d\d\1\d\d(?:[T_-]?\d\d(?:[:_-]?\d\d){0,2}Z?)?(?!\d)(?=\D*$)")


@dataclass(frozen=True)
class Guess:
    """A description as far as it can be guessed.

    Attributes:
        tree: the description, with TODO for each open question.
        comments: notes to write beside a key, by the key's path, such as ``boundary.x``.
        notes: notes on the file as a whole.
    """

    tree: dict[str, Any]
    comments: dict[str, str]
    notes: list[str]

    @property
    def questions(self) -> list[str]:
        """Paths of the keys that are left open."""
        groups = {key: value for key, value in self.tree.items() if isinstance(value, dict)}
        nested = {f"{key}.{name}": item for key, value in groups.items() for name, item in value.items()}
        return [key for key, value in (self.tree | nested).items() if value == TODO]

    @property
    def text(self) -> str:
        """The description as YAML."""
        lines = [f"# {printable(note)}" for note in self.notes]
        for key, value in self.tree.items():
            comment = self._comment(key)
            if isinstance(value, dict) and value:
                lines.append(f"{key}:{comment}")
                lines += [
                    f"  {_flow(name)}: {_flow(item)}{self._comment(f'{key}.{name}')}" for name, item in value.items()
                ]
            else:
                lines.append(f"{key}: {_flow(value)}{comment}")
        return "\n".join(lines) + "\n"

    @property
    def provisional(self) -> dict[str, Any] | None:
        """The description with neutral answers, good enough to draw the fields; None where the axes are not known."""
        if TODO in (self.tree["axes"], self.tree["spacing"]):
            return None
        answers = {"system": "unnamed", "time_step": 1.0}
        filled: dict[str, Any] = {
            key: answers[key] if value == TODO else value for key, value in self.tree.items() if key != "files"
        }
        filled["spacing"] = {axis: 1.0 if step == TODO else step for axis, step in self.tree["spacing"].items()}
        return filled | {"boundary": dict.fromkeys(self.tree["boundary"], "open")}

    def _comment(self, key: str) -> str:
        return f"  # {printable(self.comments[key])}" if key in self.comments else ""


def _flow(value: object) -> str:
    """Return a value as one line of YAML."""
    return yaml.safe_dump(value, default_flow_style=True, width=10**6, sort_keys=False).removesuffix("\n...\n").strip()


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
    fields = likely_fields(arrays)
    for name, stored in fields.items() if all(each.problem for each in fields.values()) else ():
        stored.check_readable(f"{path}, {name}")
    if not fields:
        raise DataError(
            f"{path}: expected an array of two axes or more, of real or packed numbers, as a field, found "
            f"{listed(f'{name} {stored.outline}' for name, stored in held.items())}."
        )
    coordinates = {name: max(stored.shape) for name, stored in arrays.items() if is_coordinate(name, stored)}
    measured = {
        name.rpartition("/")[2] for name, each in arrays.items() if len(each.shape) == 1 and each.dtype.kind == "f"
    }
    axes = {name: guess_axes(stored, coordinates, measured) for name, stored in fields.items()}
    files = files_like(path, beside)
    if files is not None and not all(axes.values()):
        axes = {name: snapshot_axes(stored, coordinates) for name, stored in fields.items()}
    first = _besides_components(axes[max(fields, key=lambda name: math.prod(fields[name].shape))])
    fields = {name: stored for name, stored in fields.items() if _besides_components(axes[name]) == first}
    axes = {name: axes[name] for name in fields}
    known = next(iter(axes.values())) if all(axes.values()) else None
    return _Guesser(path, kind, arrays, coordinates, fields, axes, known or [], files, seen_from(beside, path)).guess()


def files_like(path: Path, beside: Path) -> str | None:
    """Return a glob, from the folder ``beside``, of files that may be snapshots like one; None where there are too few.

    Their names differ from its own in the last number or date; those in sibling folders count too if there are any.
    """
    alike, folder = glob_of(path.stem) + path.suffix, seen_from(beside, path.parent)
    patterns = [f"{folder}/{alike}".removeprefix("./")]
    head, _, last = folder.rpartition("/")
    if not folder.startswith(".") and not head.endswith(":/"):  # neither above the description nor a host
        patterns.append("/".join(filter(None, (head, glob_of(last), alike))))
    found = {pattern: _num_matches(within(beside, pattern)) for pattern in patterns}
    return max(found, key=lambda pattern: found[pattern]) if found[patterns[0]] >= _LEAST else None


def _num_matches(pattern: Path) -> int:
    try:
        return len(matches(pattern))
    except DataError:  # a server that lists nothing
        return 0


def glob_of(name: str) -> str:
    """Return a name with ``*`` for its last number, or for a date at its end."""
    form = date_form(name)
    if form:
        return re.sub(rf"{date_pattern(form)}(?=\D*$)", "*", name)
    start, end = place_of_last(name) or (len(name), len(name))
    return f"{name[:start]}*{name[end:]}" if start < end else name


def date_form(name: str) -> str | None:
    """Return the form of the date at the end of a name, None where there is none.

    >>> date_form("out_d01_2020-01-31_18:00")
    '%Y-%m-%d_%H:%M'
    """
    if (match := _DATE.search(name)) is None:
        return None
    directives = iter(("%Y", "%m", "%d", "%H", "%M", "%S"))
    form = re.sub(r"^\d{4}|\d\d", lambda _: next(directives), match[0])
    return form if seconds_of([match[0]], form) else None


@dataclass(frozen=True)
class _Guesser:
    path: Path
    kind: FileKind
    arrays: Mapping[str, StoredArray]
    coordinates: Mapping[str, int]
    fields: Mapping[str, StoredArray]
    axes: Mapping[str, list[Axis] | None]
    known: list[Axis]
    files: str | None
    file: str

    @property
    def first(self) -> str:
        """Name of the first field's array."""
        return next(iter(self.fields))

    @property
    def field(self) -> StoredArray:
        """The first field."""
        return self.fields[self.first]

    def guess(self) -> Guess:
        known, said = self.known, self._said_of_files()
        files = self.files if said and self.files else self.file
        grid = [axis for axis in GRID if axis in known]
        comments: dict[str, str] = {
            "system": "a name for the equations, the same for all data of this kind",
            "files": "from the folder of this file; a glob such as '*.nc', or {train: ..., valid: ..., test: ...}",
            "fields": "name in the model's vocabulary: where it lies; rename as you like",
        }
        along = {axis: name for axis in grid if (name := self._coordinate(axis))}
        steps = {axis: name for axis, name in along.items() if self._step(axis, name) is not None}
        spacing: Any = {axis: steps.get(axis, TODO) for axis in grid} or TODO
        boundary: Any = dict.fromkeys(grid, TODO) or TODO
        if not known:
            shape = self.field.shape
            often = f"[{', '.join(SUGGESTED.get(len(shape), SUGGESTED[4]))}]"
            of_one = (
                f", or of one snapshot [{', '.join([*GRID, 'component'][max(0, 3 - len(shape)) : max(3, len(shape))])}]"
            )
            comments["axes"] = f"the arrays are {shape}: such as {often}{of_one * bool(said)}, in the order of the file"
            comments["spacing"] = "for each grid axis, the cell size or the array of coordinates: {y: 0.1, x: x}"
            comments["boundary"] = "for each grid axis: periodic, open, wall, no_flux or mixed"
        for axis in grid:
            comments[f"boundary.{axis}"] = f"periodic, open, wall, no_flux or mixed{self._hint_on_ends(axis)}"
            if spacing[axis] == TODO:
                uneven = (
                    f"{along.get(axis)} is uneven, which is not supported: interpolate the fields, or count cells by 1"
                )
                comments[f"spacing.{axis}"] = uneven if axis in along else "size of a cell, or the array of coordinates"
            if axis in steps and self._is_circle(axis, steps[axis]):
                boundary[axis], comments[f"boundary.{axis}"] = "periodic", f"{along[axis]} goes round the globe"
        has_time = "time" in known
        time = self._coordinate("time") or (None if has_time or not said else self._time_of_snapshot())
        if not time:
            in_names = "; or {number_in_name: UNIT}, or {date_in_name: '%Y%m%d'}" if said and not has_time else ""
            comments["time_step"] = f"time between snapshots, or the array of times{in_names}"
        tree: dict[str, Any] = {
            "system": TODO,
            "files": files,
            "axes": known or TODO,
            **({"concat": "time"} if said and has_time else {}),
            "fields": dict(sources(self.fields, self.axes, known)),
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
        return Guess(tree, comments, self._notes(left_in, said))

    def _said_of_files(self) -> str:
        """Return a note on files that may be snapshots, empty where there are none or the file has many times."""
        if self.files is None or ("time" in self.known and self.field.shape[self.known.index("time")] > 1):
            return ""
        where = "each is taken for one snapshot" if self.known else "where each is one snapshot, leave time out of axes"
        return f"Files {self.files} differ in a number or date: {where}."

    def _time_of_snapshot(self) -> object:
        """Return the source of the time of a snapshot as a description writes it; None where it is not found."""
        for name, stored in self.arrays.items():
            if plain_name(name).lower() in _TIMES and stored.shape in ((), (1,)):
                return name
        held = next(({"attribute": key} for key in self.kind.numbers(self.path, "") if key.lower() in _TIMES), None)
        form = date_form(self.path.stem)
        return held or (form and {"date_in_name": form})

    def _coordinate(self, axis: Axis) -> str | None:
        """Return the coordinate array of an axis: the one that the file ties to it, else one of fitting name and length."""
        if axis not in self.known:
            return None
        stored, position = self.field, self.known.index(axis)
        names = [stored.axes[position]] if stored.axes else []
        ours = [role for role in GRID if role in self.known]
        theirs = [role for role in GRID if role in map(role_of, self.coordinates)]  # x, z of a plane are our x, y
        named_there: dict[Axis, Axis] = dict(zip(ours, theirs, strict=True)) if len(ours) == len(theirs) else {}
        role = named_there.get(axis, axis)
        size, of_axis = stored.shape[position], [name for name in self.arrays if role_of(name) == role]
        alike = [name for name in of_axis if self.coordinates.get(name) == size]
        dates = [name for name in of_axis if is_text(self.arrays[name]) and self.arrays[name].shape[:1] == (size,)]
        is_vector = {name: len(each.shape) == 1 for name, each in self.arrays.items()}
        named = [name for name in names if name in self.coordinates or is_vector.get(name)]
        tied = [stored.scales[position]] if stored.scales else []
        found = [name for name in (*named, *tied, *alike, *dates) if name and axis_name(name) not in NO_TIMES]
        return next(iter(sorted(found, key=lambda name: axis_name(name) in COUNTERS)), None)

    def _step(self, axis: Axis, name: str) -> float | None:
        """Return the spacing of the coordinates in an array, None where it is uneven; 0 where there are none to judge."""
        stored, size = self.arrays.get(name), self.field.shape[self.known.index(axis)]
        if stored is None or math.prod(stored.shape) != size or size < 2:
            return 0.0
        raw = self.kind.read(self.path, name, (slice(None),) * len(stored.shape))
        places = stored.packing.unpacked(raw).astype(np.float64).reshape(-1)
        try:
            return even_step(places if places[-1] > places[0] else places[::-1], name, UNEVEN_SPACE, "")
        except DataError:
            return None

    def _is_circle(self, axis: Axis, name: str) -> bool:
        """Whether cells go once around the globe in degrees of longitude."""
        step, size = self._step(axis, name) or 0.0, self.field.shape[self.known.index(axis)]
        return abs(step * size - 360) < 1e-3 * step and self.arrays[name].unit.lower().startswith("degree")

    def _hint_on_ends(self, axis: Axis) -> str:
        """Return a hint on an axis's boundary: the jump of a middle snapshot across the ends over those between neighbours."""
        sizes: dict[Axis, int] = dict(zip(self.known, self.field.shape, strict=True))
        grid: list[Axis] = [role for role in self.known if role in GRID]
        if math.prod(sizes[role] for role in grid) > _MOST_CELLS:
            return ""
        picked: dict[Axis, int | slice] = {"time": sizes.get("time", 0) // 2, **dict.fromkeys(grid, slice(None))}
        raw = self.kind.read(self.path, self.first, tuple(picked.get(role, 0) for role in self.known))
        frame = np.moveaxis(self.field.packing.unpacked(raw).astype(np.float64), grid.index(axis), 0)
        if not np.isfinite(frame).all():
            return "; some values here are not finite, and masks are not supported"
        inside = float(np.abs(np.diff(frame, axis=0)).mean()) if len(frame) > 2 else 0.0
        if inside == 0:
            return ""
        ratio = float(np.abs(frame[0] - frame[-1]).mean()) / inside
        return f"; from the last cell to the first, {self.first} jumps {ratio:.2g} times as far as between neighbours"

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
        """Return the names of the file's numeric attributes."""
        return [
            name for name in self.kind.numbers(self.path, "") if not name.startswith("_") and role_of(name) != "time"
        ]

    def _notes(self, left_in: Sequence[object], said: str) -> list[str]:
        others = {
            f"{name} {stored.shape}": lies_between(stored, self.field)
            for name, stored in self.arrays.items()
            if name not in (*self.fields, *self.coordinates, *left_in) and len(stored.shape) > 1 and not is_text(stored)
        }
        notes = [f"What is in {self.path.name}, as far as it can be told. Answer each {TODO}; docs/data.md says more."]
        notes += filter(None, [said])
        if len(attributes := self._attributes()) > _MOST_ATTRIBUTES:
            notes.append(
                f"Attributes that set trajectories apart belong into parameters; there are {listed(attributes)}."
            )
        if between := [name for name, is_between in others.items() if is_between]:
            notes.append(
                f"Left out, since they lie between the cells of the fields (a staggered grid): {listed(between)}. Average them "
                "to the cells first, as docs/data.md shows."
            )
        if apart := [name for name, is_between in others.items() if not is_between]:
            notes.append(f"Left out, of other shapes than the fields: {listed(apart)}.")
        return notes


def _besides_components(axes: list[Axis] | None) -> set[Axis]:
    return {axis for axis in axes or [] if axis != "component"}


_NAMES = {
    **dict.fromkeys("u vx uwnd velocity_x vel_x x_velocity xvel".split(), "velocity_x"),
    **dict.fromkeys("v vy vwnd velocity_y vel_y y_velocity yvel".split(), "velocity_y"),
    **dict.fromkeys("w vz wwnd velocity_z vel_z z_velocity zvel".split(), "velocity_z"),
    **dict.fromkeys("p pres press pressure".split(), "pressure"),
    **dict.fromkeys("rho dens density".split(), "density"),
    **dict.fromkeys("temp temperature".split(), "temperature"),
    **dict.fromkeys("theta potential_temperature".split(), "potential_temperature"),
}
_VECTORS = {"velocity": "velocity", "vel": "velocity", "momentum": "momentum", "magnetic": "magnetic", "b": "magnetic"}
_FEW = 5  # an axis up to this length may count the components of a vector or tensor
SUGGESTED = {
    2: ["time", "x"],
    3: ["time", "y", "x"],
    4: ["trajectory", "time", "y", "x"],
    5: ["trajectory", "time", "y", "x", "component"],
    6: ["trajectory", "time", "z", "y", "x", "component"],
}
"""Usual axes of an array by their number."""


def likely_fields(arrays: Mapping[str, StoredArray]) -> dict[str, StoredArray]:
    """Return the arrays that may be fields: those of the largest shape, apart from axes of components, and not staggered."""
    return _largest(arrays, is_timed=True) or _largest(arrays, is_timed=False)


def _largest(arrays: Mapping[str, StoredArray], *, is_timed: bool) -> dict[str, StoredArray]:
    """Return the likely fields among the arrays that may have a time axis (``is_timed``), or among all."""
    candidates = {
        name: stored for name, stored in arrays.items() if len(stored.shape) > 1 and _may_vary(stored, is_timed)
    }
    candidates = {
        name: stored
        for name, stored in candidates.items()
        if not any(lies_between(stored, other) for other in candidates.values())
    }
    largest = max(
        (stored.shape for stored in candidates.values()), key=lambda shape: (math.prod(shape), len(shape)), default=()
    )
    return {
        name: stored
        for name, stored in candidates.items()
        if _long_axes(stored.shape) == _long_axes(largest) and abs(len(stored.shape) - len(largest)) <= 1
    }


def _may_vary(stored: StoredArray, is_timed: bool) -> bool:
    """Whether an array holds real or packed numbers and, if ``is_timed``, has an axis that may be time by its name."""
    roles = [*map(role_of, stored.axes)] or [None]
    return (stored.dtype.kind == "f" or stored.packing.is_packed) and (not is_timed or bool({"time", None} & {*roles}))


def _long_axes(shape: tuple[int, ...]) -> list[int]:
    return sorted(size for size in shape if size > _FEW)


def lies_between(stored: StoredArray, other: StoredArray) -> bool:
    """Whether an array lies on the faces or corners of another's cells: one longer along some axes, as on staggered grids.

    p: 3 cells            |  o  |  o  |  o  |
    u: 4 faces            |     |     |     |
    """
    longer = [size - own for size, own in zip(stored.shape, other.shape, strict=False)]
    if len(stored.shape) != len(other.shape) or {*longer} != {0, 1}:
        return False
    names = other.axes or [""] * len(longer)
    along = [(size, name) for size, name, by in zip(other.shape, names, longer, strict=True) if by]
    return all(size > _FEW or role_of(name) in GRID for size, name in along)  # others may count components


def guess_axes(stored: StoredArray, coordinates: Mapping[str, int], measured: Collection[str]) -> list[Axis] | None:
    """Return the kind of each axis of an array, None where they cannot be told.

    Args:
        stored: the array.
        coordinates: lengths of the file's one-dimensional arrays that have the name of an axis, by name.
        measured: names of all one-dimensional arrays of real numbers; an axis with such a name does not count components.
    """
    roles = [*map(role_of, stored.axes)] if stored.axes else _by_length(stored.shape, coordinates)
    left = [position for position, role in enumerate(roles) if role is None]
    if len(left) == 1 and left[0] > 0 and stored.shape[left[0]] <= MOST_COMPONENTS and "component" not in roles:
        is_measured = bool(stored.axes) and stored.axes[left[0]] in measured
        roles[left[0]] = None if is_measured else "component"
    known = [role for role in roles if role is not None]
    if len(known) < len(roles) or len(set(known)) < len(known) or "time" not in known:
        return None
    return _on_our_grid(known)


def snapshot_axes(stored: StoredArray, coordinates: Mapping[str, int]) -> list[Axis] | None:
    """Return the axes of an array of one snapshot, None where neither names nor coordinates of their lengths tell them."""
    names = (
        {size: name for name, size in coordinates.items()} if len({*coordinates.values()}) == len(coordinates) else {}
    )
    roles = [role_of(name or "") for name in (stored.axes or [names.get(size) for size in stored.shape])]
    known = _on_our_grid([role for role in roles if role is not None])
    return known if known and len({*known}) == len(roles) and "time" not in known else None


def _by_length(shape: Sequence[int], coordinates: Mapping[str, int]) -> list[Axis | None]:
    """Return the kinds of unnamed axes from coordinates of their length; two axes of one length cannot be told apart."""
    roles: list[Axis | None] = [None] * len(shape)
    for name, size in coordinates.items():
        places = [position for position, length in enumerate(shape) if length == size]
        if len(places) == 1 and list(coordinates.values()).count(size) == 1:
            roles[places[0]] = role_of(name)
    is_first_left = roles[:1] == [None] and len(shape) > 1 and all(roles[1:])
    if is_first_left and "trajectory" not in roles:
        roles[0] = "trajectory"
    return roles


def _on_our_grid(roles: Sequence[Axis]) -> list[Axis] | None:
    """Return kinds with the grid axes renamed to ours, None without any: a plane has y and x, whatever its file calls them."""
    theirs = [axis for axis in GRID if axis in roles]
    ours: dict[Axis, Axis] = dict(zip(theirs, GRID[len(GRID) - len(theirs) :], strict=True))
    return [ours.get(role, role) for role in roles] if theirs else None


def is_coordinate(name: str, stored: StoredArray) -> bool:
    """Whether an array has the name of an axis and the shape of coordinates."""
    is_vector = len(stored.shape) == 1 or (len(stored.shape) == 2 and 1 in stored.shape)  # as MATLAB writes one
    return is_vector and axis_name(name) in ROLES


def has_dates(name: str, stored: StoredArray) -> bool:
    """Whether an array holds times as text."""
    return is_text(stored) and role_of(name) == "time"


def sources(
    fields: Mapping[str, StoredArray], axes: Mapping[str, list[Axis] | None], known: Sequence[Axis]
) -> Iterator[tuple[str, Any]]:
    """Yield the name of each field or component, and its source as a description writes it.

    Args:
        fields: the arrays.
        axes: axes of each array.
        known: axes that the description gives for all arrays, if they are known.
    """
    used: set[str] = set()
    for name, stored in fields.items():
        own, plain = axes[name], plain_name(name)
        extra = {} if own == known or own is None else {"axes": own}
        if own is None or "component" not in own:
            yield _unused(field_name(name), used), {"array": name, **extra} if extra else name
            continue
        count, vector = stored.shape[own.index("component")], _VECTORS.get(plain.lower())
        for number in range(count):
            ending = "xyz"[number] if vector and count <= 3 else str(number)
            yield _unused(f"{vector or plain}_{ending}", used), {"array": name, **extra, "index": number}


def constant_arrays(
    arrays: Mapping[str, StoredArray], field: StoredArray, known: Sequence[Axis], left_out: set[str]
) -> Iterator[tuple[str, list[Axis]]]:
    """Yield the names and axes of arrays on the grid of the fields without time: coefficients, masks, geometry.

    Args:
        arrays: all arrays of the file.
        field: one of the fields.
        known: axes of that field.
        left_out: names of arrays that are known to be something else.
    """
    for name, stored in arrays.items():
        own = None if name in left_out else _axes_of(stored, field, known)
        if own and "time" not in own and not set(own).isdisjoint(GRID):
            yield name, own


def _axes_of(stored: StoredArray, field: StoredArray, known: Sequence[Axis]) -> list[Axis] | None:
    """Return an array's axes, by the names of the field's axes or, without names, by their lengths in order."""
    if stored.axes and field.axes:
        ours = dict(zip(field.axes, known, strict=True))
        found = [ours[axis] for axis in stored.axes if axis in ours]
        return found if len(found) == len(stored.axes) == len(set(found)) else None
    sizes = dict(zip(known, field.shape, strict=True))
    for outside in ({"time", "component"}, {"time", "component", "trajectory"}):
        left = [axis for axis in known if axis not in outside]
        if len(left) > 1 and tuple(sizes[axis] for axis in left) == stored.shape:
            return left
    return None


def field_name(name: str) -> str:
    """Return the field's name in the vocabulary, from the name of its array."""
    group, _, last = name.rpartition("/")
    if group and last in COMPONENTS:  # such as E/x
        vector = plain_name(group)
        return f"{_VECTORS.get(vector.lower(), vector)}_{last}"
    return _NAMES.get(plain_name(name).lower(), plain_name(name))


def plain_name(name: str) -> str:
    """Return an array's name as a valid name of a field."""
    parts = [re.sub(r"\W+", "_", part).strip("_") for part in name.split("/")]
    return next(filter(None, reversed(parts)), "field")


def _unused(name: str, used: set[str]) -> str:
    number = 2
    while name in used:
        name, number = f"{name.rstrip('0123456789_')}_{number}", number + 1
    used.add(name)
    return name
