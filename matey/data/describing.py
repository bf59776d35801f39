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

import yaml

from matey.config.description import TODO, Axis
from matey.data.arrays import kind_of
from matey.data.coordinates import (
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
from matey.data.remote import matches, seen_from, within
from matey.data.stored import FileKind, StoredArray
from matey.data.trajectories import DataError
from matey.mistakes import listed, printable

_MOST_ATTRIBUTES = 12  # if there are more, none is taken for a parameter
_LEAST = 3  # fewer files are not taken for snapshots
_TIMES = ("time", "times", "t", "sim_time")


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
    arrays = {name: stored for name, stored in held.items() if stored.dtype.kind in "fiub"}
    fields = likely_fields(arrays)
    if not fields:
        raise DataError(
            f"{path}: expected an array of two axes or more, of real or packed numbers, as a field, found "
            f"{listed(f'{name} {stored.outline}' for name, stored in held.items())}."
        )
    coordinates = {name: max(stored.shape) for name, stored in arrays.items() if is_coordinate(name, stored)}
    axes = {name: guess_axes(stored, coordinates) for name, stored in fields.items()}
    files = files_like(path, beside)
    if files is not None and not all(axes.values()):
        axes = {name: guess_axes(stored, coordinates, of_snapshot=True) for name, stored in fields.items()}
    # Fields of one description have the same axes, apart from components: those of the largest.
    besides = {name: {*(own or ())} - {"component"} for name, own in axes.items()}
    first = besides[max(fields, key=lambda name: math.prod(fields[name].shape))]
    fields = {name: stored for name, stored in fields.items() if besides[name] == first}
    axes = {name: axes[name] for name in fields}
    known = next(iter(axes.values())) if all(axes.values()) else None
    return _Guesser(path, kind, arrays, coordinates, fields, axes, known or [], files, seen_from(beside, path)).guess()


def files_like(path: Path, beside: Path) -> str | None:
    """Return a glob, from the folder ``beside``, of files that may be snapshots like one; None where there are too few.

    Their names differ from its own in the last number; those in sibling folders count too if there are any.
    """
    alike, folder = glob_of(path.stem) + path.suffix, seen_from(beside, path.parent)
    patterns = [f"{folder}/{alike}".removeprefix("./")]
    head, _, last = folder.rpartition("/")
    if not folder.startswith(".") and not head.endswith(":/"):  # neither above the description nor a host
        patterns.append("/".join(filter(None, (head, glob_of(last), alike))))
    try:
        found = {pattern: len(matches(within(beside, pattern))) for pattern in patterns}
    except DataError:  # a server that lists nothing
        return None
    return max(found, key=lambda pattern: found[pattern]) if found[patterns[0]] >= _LEAST else None


def glob_of(name: str) -> str:
    """Return a name with ``*`` for its last number.

    >>> [glob_of(name) for name in ("t_0.0050", "run_7_end", "plain")]
    ['t_*', 'run_*_end', 'plain']
    """
    return re.sub(r"\d+(?:\.\d+)?(?=\D*$)", "*", name)


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
    def field(self) -> StoredArray:
        """The first field."""
        return next(iter(self.fields.values()))

    @property
    def sizes(self) -> dict[Axis, int]:
        """The length of each axis of the first field."""
        return dict(zip(self.known, self.field.shape, strict=False))

    def guess(self) -> Guess:
        are_snapshots = self.files is not None and self.sizes.get("time", 1) == 1
        grid = [axis for axis in GRID if axis in self.known]
        along = {axis: name for axis in grid if (name := self._coordinate(axis))}
        spacing: Any = {axis: along[axis] if self._is_even(along.get(axis)) else TODO for axis in grid}
        time = self._coordinate("time") if "time" in self.known else are_snapshots and self._time_of_snapshot()
        parameters = dict(self._parameters())
        tree = {
            "system": TODO,
            "files": self.files or self.file,
            "axes": self.known or TODO,
            **({"concat": "time"} if are_snapshots and "time" in self.known else {}),
            "fields": dict(sources(self.fields, self.axes, self.known)),
            "spacing": spacing or TODO,
            "time_step": time or TODO,
            "boundary": dict.fromkeys(grid, TODO) or TODO,
            **({"parameters": parameters} if parameters else {}),
        }
        ends = "periodic, open, wall, no_flux or mixed"
        comments = {
            "system": "a name for the equations, the same for all data of this kind",
            "files": "from the folder of this file; a glob such as '*.nc', or {train: ..., valid: ..., test: ...}"
            + "; each is taken for a trajectory: add 'concat: time' if they follow each other"
            * (self.files is not None and not are_snapshots),
            "fields": "name in the model's vocabulary: where it lies; rename as you like",
            "parameters": "numbers that set trajectories apart; remove what does not",
            **{f"boundary.{axis}": ends for axis in grid},
        }
        for axis in (axis for axis in grid if spacing[axis] == TODO):
            uneven = f"{along.get(axis)} is uneven, which is not supported: interpolate the fields, or count cells by 1"
            comments[f"spacing.{axis}"] = uneven if axis in along else "size of a cell, or the array of coordinates"
        if not self.known:
            comments["axes"] = (
                f"the arrays are {self.field.shape}: in the order of the file, which of trajectory, time, z, y, x, component"
                f"{', or without time those of one snapshot' * are_snapshots}"
            )
            comments["spacing"] = "for each grid axis, the cell size or the array of coordinates: {y: 0.1, x: x}"
            comments["boundary"] = f"for each grid axis: {ends}"
        if not time:
            comments["time_step"] = (
                "time between snapshots, or the array of times; docs/own_data.md: or what is in names"
            )
        return Guess(tree, comments, self._notes({*along.values()}, are_snapshots))

    def _time_of_snapshot(self) -> object:
        """Return the source of the time of a snapshot as a description writes it; None where it is not found."""
        for name, stored in self.arrays.items():
            if plain_name(name).lower() in _TIMES and stored.shape in ((), (1,)):
                return name
        return next(({"attribute": key} for key in self.kind.numbers(self.path, "") if key.lower() in _TIMES), None)

    def _coordinate(self, axis: Axis) -> str | None:
        """Return the coordinate array of an axis: the one that has its name, else one of fitting name and length."""
        at, size = self.known.index(axis), self.sizes[axis]
        ours = [role for role in GRID if role in self.known]
        theirs = [role for role in GRID if role in map(role_of, self.coordinates)]  # x, z of a plane are our x, y
        named_there: dict[Axis, Axis] = dict(zip(ours, theirs, strict=True)) if len(ours) == len(theirs) else {}
        role = named_there.get(axis, axis)
        named = [
            name for name in self.field.axes[at : at + 1] if name in self.arrays and len(self.arrays[name].shape) == 1
        ]
        alike = [name for name, length in self.coordinates.items() if length == size and role_of(name) == role]
        fitting = [name for name in (*named, *alike) if axis_name(name) not in NO_TIMES]
        return min(fitting, key=lambda name: axis_name(name) in COUNTERS, default=None)

    def _is_even(self, name: str | None) -> bool:
        """Whether there is an array of coordinates, evenly spaced as far as it can be judged."""
        if name is None:
            return False
        stored = self.arrays[name]
        places = stored.numbers(self.kind.read(self.path, name, (slice(None),) * len(stored.shape)))
        try:
            even_step(places if places[-1] >= places[0] else places[::-1], name, UNEVEN_SPACE, "")
        except DataError:
            return False
        return True

    def _parameters(self) -> Iterator[tuple[str, Any]]:
        count = self.sizes.get("trajectory", 1)
        for name, other in self.arrays.items():
            is_one = math.prod(other.shape) == 1 or (count > 1 and other.shape == (count,))
            is_time = role_of(name) == "time" or [*map(role_of, other.axes)] == ["time"]
            if is_one and other.dtype.kind != "b" and name not in self.coordinates and not is_time:
                yield plain_name(name), {"array": name}
        numbers = [
            key for key in self.kind.numbers(self.path, "") if not key.startswith("_") and role_of(key) != "time"
        ]
        if len(numbers) <= _MOST_ATTRIBUTES:
            yield from ((name, {"attribute": name}) for name in numbers)

    def _notes(self, used: Collection[str], are_snapshots: bool) -> list[str]:
        notes = [
            f"What is in {self.path.name}, as far as it can be told. Answer each {TODO}; docs/own_data.md says more."
        ]
        if are_snapshots:
            where = (
                "each is taken for one snapshot" if self.known else "where each is one snapshot, leave time out of axes"
            )
            notes.append(f"Files {self.files} differ in a number: {where}.")
        others = {
            name: stored
            for name, stored in self.arrays.items()
            if name not in (*self.fields, *self.coordinates, *used) and len(stored.shape) > 1
        }
        if others:
            shapes = listed(f"{name} {each.shape}" for name, each in others.items())
            notes.append(
                f"Left out, of other shapes than the fields: {shapes}. docs/own_data.md: what is constant in time may be "
                "given; what lies between the cells is averaged first."
            )
        return notes


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


def likely_fields(arrays: Mapping[str, StoredArray]) -> dict[str, StoredArray]:
    """Return the arrays that may be fields: those of the largest shape, apart from axes of components, and not staggered."""
    real = {
        name: stored
        for name, stored in arrays.items()
        if len(stored.shape) > 1 and (stored.dtype.kind == "f" or stored.packing.is_packed)
    }
    timed = {name: each for name, each in real.items() if not each.axes or {"time", None} & {*map(role_of, each.axes)}}
    found = timed or real
    found = {n: each for n, each in found.items() if not any(lies_between(each, other) for other in found.values())}
    largest = max((each.shape for each in found.values()), key=lambda shape: (math.prod(shape), len(shape)), default=())
    return {
        name: stored
        for name, stored in found.items()
        if _long_axes(stored.shape) == _long_axes(largest) and abs(len(stored.shape) - len(largest)) <= 1
    }


def _long_axes(shape: tuple[int, ...]) -> list[int]:
    return sorted(size for size in shape if size > _FEW)


def lies_between(stored: StoredArray, other: StoredArray) -> bool:
    """Whether an array lies on the faces or corners of another's cells: one longer along some axes, as on staggered grids.

    p: 3 cells            |  o  |  o  |  o  |
    u: 4 faces            |     |     |     |
    """
    longer = [size - own for size, own in zip(stored.shape, other.shape, strict=False)]
    alike = len(stored.shape) == len(other.shape) and {*longer} == {0, 1}
    return alike and all(size > _FEW for size, by in zip(other.shape, longer, strict=True) if by)  # not of components


def guess_axes(stored: StoredArray, coordinates: Mapping[str, int], *, of_snapshot: bool = False) -> list[Axis] | None:
    """Return the kind of each axis of an array, None where they cannot be told.

    Args:
        stored: the array.
        coordinates: lengths of the file's one-dimensional arrays that have the name of an axis, by name.
        of_snapshot: whether the array is one snapshot, without an axis of time; else it needs one.
    """
    roles = [*map(role_of, stored.axes)] if stored.axes else _by_length(stored.shape, coordinates)
    if roles[:1] == [None] and not stored.axes and all(roles[1:]) and "trajectory" not in roles and not of_snapshot:
        roles[0] = "trajectory"
    left = [position for position, role in enumerate(roles) if role is None]
    if len(left) == 1 and left[0] > 0 and stored.shape[left[0]] <= MOST_COMPONENTS and "component" not in roles:
        roles[left[0]] = "component"
    known = [role for role in roles if role is not None]
    theirs = [axis for axis in GRID if axis in known]
    if len({*known}) < len(roles) or ("time" in known) == of_snapshot or not theirs:
        return None
    # A plane has y and x, whatever its file calls them.
    ours: dict[Axis, Axis] = dict(zip(theirs, GRID[len(GRID) - len(theirs) :], strict=True))
    return [ours.get(role, role) for role in known]


def _by_length(shape: Sequence[int], coordinates: Mapping[str, int]) -> list[Axis | None]:
    """Return the kinds of unnamed axes from coordinates of their length; two axes of one length cannot be told apart."""
    named = {size: name for name, size in coordinates.items() if [*coordinates.values()].count(size) == 1}
    return [role_of(named[size]) if size in named and list(shape).count(size) == 1 else None for size in shape]


def is_coordinate(name: str, stored: StoredArray) -> bool:
    """Whether an array has the name of an axis and the shape of coordinates."""
    is_vector = len(stored.shape) == 1 or (len(stored.shape) == 2 and 1 in stored.shape)  # as MATLAB writes one
    return is_vector and axis_name(name) in ROLES


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
            yield _unused(_NAMES.get(plain.lower(), plain), used), {"array": name, **extra} if extra else name
            continue
        count, vector = stored.shape[own.index("component")], _VECTORS.get(plain.lower())
        for number in range(count):
            ending = "xyz"[number] if vector and count <= 3 else str(number)
            yield _unused(f"{vector or plain}_{ending}", used), {"array": name, **extra, "index": number}


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
