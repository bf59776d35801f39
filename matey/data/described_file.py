"""One file as a description says it is: its arrays found and checked, and its trajectories."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from dataclasses import field as filled
from pathlib import Path

import numpy as np

from matey.config import DataDescription
from matey.config.description import Axis, FieldSource, GridAxis
from matey.data.arrays.stored import FileKind, StoredArray
from matey.data.coordinates import mean_step
from matey.data.trajectories import Boundary, DataError, Part, Trajectory
from matey.mistakes import nearest_name

MAX_TRAJECTORIES = 10**6  # of a file; a header that says more is corrupt
UNEVEN_SPACE, UNEVEN_TIME = 1e-3, 0.1  # of the mean distance; solvers save at the first step after each due time
GRID: tuple[GridAxis, ...] = ("z", "y", "x")
NO_AXIS: Boundary = "none"
_MAX_LISTED = 12


@dataclass(frozen=True)
class Located:
    """A trajectory and where it lies in its file.

    Attributes:
        about: the trajectory.
        sample: index of the trajectory along the arrays' axis, where there is one.
        arrays: name of the array of each field.
        given: name of the array of each given field, by its name.
        along: name of the array of coordinates of each axis that has one.
        stored: description of each of these arrays by the file.
        turned: grid axes along which the file's coordinates decrease.
    """

    about: Trajectory
    sample: int
    arrays: tuple[str, ...]
    given: Mapping[str, str]
    along: Mapping[str, str]
    stored: Mapping[str, StoredArray]
    turned: frozenset[str]


@dataclass(frozen=True)
class _File:
    """A file, its description, and all of its arrays."""

    path: Path
    kind: FileKind
    description: DataDescription
    arrays: Mapping[str, StoredArray]
    known: dict[str, np.ndarray] = filled(default_factory=dict)

    def values(self, name: str, use: str) -> np.ndarray:
        """Read all values of a small array, such as coordinates, once."""
        if name not in self.known:
            stored = self.find(name, use)
            raw = self.kind.read(self.path, name, (slice(None),) * len(stored.shape))
            self.known[name] = stored.packing.unpacked(raw).astype(np.float64)
        return self.known[name]

    def find(self, name: str, use: str = "") -> StoredArray:
        """Return the description of an array of numbers.

        Raises:
            DataError: it is missing, holds something else, claims more than the file has, or cannot be read as the file says.
        """
        if name not in self.arrays:
            found = [f"{key} {stored.shape}" for key, stored in self.arrays.items() if not stored.is_link]
            raise DataError(
                f"{self.path}: expected an array {name!r}{use}, found {listed(found)}.{nearest_name(name, self.arrays)} "
                "Mend the description."
            )
        stored = self.arrays[name]
        if stored.is_link:
            stored.check_readable(f"{self.path}, {name}")
        if stored.dtype.kind not in "fiu":
            mend = "give time_step as a number" if "times" in use else "write them as such"
            raise DataError(f"{self.path}, {name}: expected real numbers{use}, got {stored.dtype}; {mend}.")
        held = self.path.stat().st_size if self.path.is_file() else stored.limit
        stored.check_claim(f"{self.path}, {name}", held)
        stored.check_readable(f"{self.path}, {name}")
        return stored


def describe_file(description: DataDescription, path: Path, kind: FileKind, part: Part | None) -> list[Located]:
    """Return the trajectories of a file.

    Raises:
        DataError: the file is not as the description says.
    """
    file = _File(path, kind, description, kind.arrays(path))
    return [located for group in _groups(file) for located in _trajectories(file, group, part)]


def listed(items: Iterable[str]) -> str:
    """Return the first of some items and how many more there are, for a message."""
    items = list(items)
    more = f" and {len(items) - _MAX_LISTED} more" if len(items) > _MAX_LISTED else ""
    return (", ".join(items[:_MAX_LISTED]) or "nothing") + more


def _trajectories(file: _File, group: str, part: Part | None) -> Iterator[Located]:
    """Yield the trajectories of a file, or of one of its groups."""
    description = file.description
    sizes, names = _sizes(file, group)
    num_frames = len(range(description.first_frame, sizes["time"], description.stride))
    if num_frames == 0:
        raise DataError(
            f"{file.path}: has {sizes['time']} snapshots, and first_frame is {description.first_frame}; lower that."
        )
    count = sizes.get("trajectory", 1)
    if count > MAX_TRAJECTORIES:
        raise DataError(f"{file.path}: claims {count:,} trajectories, more than {MAX_TRAJECTORIES:,}; mend the axes.")
    steps = {axis: _spacing(file, axis, sizes[axis], group) for axis in description.grid}
    grid_z, grid_y, grid_x = (sizes.get(axis, 1) for axis in "zyx")
    spacing_z, spacing_y, spacing_x = (abs(steps.get(axis, 1.0)) for axis in GRID)
    boundary_z, boundary_y, boundary_x = (description.boundary.get(axis, NO_AXIS) for axis in GRID)
    given = {field: _name(file, source.array, group, field) for field, source in description.given.items()}
    for field, source in description.given.items():
        _note_sizes(file, given[field], field, source, dict(sizes))
    of_axes = (*description.spacing.items(), ("time", description.time_step))
    along = {str(axis): name.replace("*", group) for axis, name in of_axes if isinstance(name, str)}
    turned = frozenset(axis for axis, step in steps.items() if step < 0)
    stored = {name: file.arrays[name] for name in (*names, *given.values())}
    stored |= {name: file.find(name, " of the times" if axis == "time" else "") for axis, name in along.items()}
    for sample in range(count):
        about = Trajectory(
            source=file.path,
            name=group or (str(sample) if "trajectory" in sizes else file.path.stem),
            num_frames=num_frames,
            grid=(grid_z, grid_y, grid_x),
            spacing=(spacing_z, spacing_y, spacing_x),
            boundary=(boundary_z, boundary_y, boundary_x),
            time_step=_time_step(file, sizes["time"], group, sample, count),
            parameters=dict(_parameters(file, group, sample, count)),
            split=part,
        )
        yield Located(about, sample, names, given, along, stored, turned)


def _groups(file: _File) -> list[str]:
    """Return the names that ``*`` in the paths of the arrays stands for, ``""`` where there is none."""
    patterns = [source.array for source in file.description.fields.values() if source.array and "*" in source.array]
    if not patterns:
        return [""]
    first = re.compile(re.escape(patterns[0]).replace(r"\*", "([^/]+)"))
    found = [match[1] for name in file.arrays if (match := first.fullmatch(name))]
    if not found:
        raise DataError(
            f"{file.path}: expected arrays such as {patterns[0]!r}, one for each trajectory, found "
            f"{listed(file.arrays)}; mend the description."
        )
    return sorted(found)


def _name(file: _File, array: str | None, group: str, field: str) -> str:
    """The array's name in the file."""
    if array is not None:
        return array.replace("*", group)
    if len(file.arrays) != 1:
        raise DataError(
            f"{file.path}: expected the name of the array of {field!r}, since the file has {listed(file.arrays)}; write it "
            f"into the description, fields.{field}.array."
        )
    return next(iter(file.arrays))


def _sizes(file: _File, group: str) -> tuple[dict[str, int], tuple[str, ...]]:
    """Lengths of the axes of the fields' arrays, and the names of the arrays."""
    sizes: dict[str, int] = {}
    names = []
    for field, source in file.description.fields.items():
        names.append(name := _name(file, source.array, group, field))
        _note_sizes(file, name, field, source, sizes)
    return sizes, tuple(names)


def _note_sizes(file: _File, name: str, field: str, source: FieldSource, sizes: dict[str, int]) -> None:
    """Add the lengths of the axes of a field's array to those that are known, which they must agree with."""
    stored, axes = file.find(name, f" for the field {field!r}"), file.description.axes_of(source)
    own: dict[Axis, int] = dict(zip(axes, stored.shape, strict=False))
    shared = {axis: size for axis, size in own.items() if axis != "component"}
    fits = len(axes) == len(stored.shape) and 0 not in stored.shape
    if not fits or any(sizes.setdefault(axis, size) != size for axis, size in shared.items()):
        expected = ", ".join(f"{axis} {sizes.get(axis, '')}".strip() for axis in axes)
        raise DataError(
            f"{file.path}, {name}: expected the axes ({expected}) for the field {field!r}, got the shape {stored.shape}"
            f"{' on ' + ', '.join(stored.axes) if stored.axes else ''}; mend the axes of the description."
        )
    if source.index is not None and source.index >= own["component"]:
        raise DataError(
            f"{file.path}, {name}: {field!r} is to be component {source.index}, and there are {own['component']}, "
            "counted from 0; mend the description."
        )


def _spacing(file: _File, axis: GridAxis, size: int, group: str) -> float:
    """Return the distance of the cells along an axis, negative where coordinates decrease."""
    given = file.description.spacing[axis]
    if isinstance(given, float):
        return given
    name, use = given.replace("*", group), f" for the coordinates of {axis}"
    places = file.values(name, use)
    if places.shape != (size,):
        what = "curvilinear grids are not supported" if places.ndim > 1 else "mend the order of the axes"
        raise DataError(
            f"{file.path}, {name}: expected {size} coordinates of {axis}, got the shape {places.shape}; {what}."
        )
    sign = -1.0 if size > 1 and places[-1] < places[0] else 1.0
    return sign * even_step(sign * places, f"{file.path}, {name}", UNEVEN_SPACE, "resample the data on an even grid")


def _time_step(file: _File, size: int, group: str, sample: int, count: int) -> float:
    """Return the time between the snapshots that are taken."""
    description = file.description
    if isinstance(description.time_step, float):
        return description.time_step * description.stride
    name = description.time_step.replace("*", group)
    times = file.values(name, " of the times")
    if times.shape == (count, size):
        times = times[sample]
    if times.shape != (size,):
        raise DataError(
            f"{file.path}, {name}: expected {size} times, one for each snapshot, got the shape {times.shape}; mend the axes or "
            "time_step."
        )
    taken = times[description.first_frame :: description.stride]
    return even_step(taken, f"{file.path}, {name}", UNEVEN_TIME, "write snapshots at even times, or give a time_step")


def even_step(places: np.ndarray, label: str, tolerance: float, remedy: str) -> float:
    """Return the distance of coordinates that are evenly spaced, 1 of a single one.

    Raises:
        DataError: they do not increase, or a distance departs from the mean by more than ``tolerance`` of it.
    """
    mean = mean_step(places, label)
    steps = np.diff(places)
    rounding = 4 * float(np.finfo(np.float32).eps) * float(np.abs(places).max())
    uneven = np.abs(steps - mean) > tolerance * mean + rounding
    if uneven.any():
        worst = int(np.argmax(np.abs(steps - mean)))
        raise DataError(
            f"{label}: expected evenly spaced coordinates, got a step of {steps[worst]:.6g} at number {worst + 1} and "
            f"{mean:.6g} on the mean; uneven spacing is not supported: {remedy}."
        )
    return mean


def _parameters(file: _File, group: str, sample: int, count: int) -> Iterator[tuple[str, float]]:
    """Yield the parameters of a trajectory; what the file does not have is left out."""
    for name, given in file.description.parameters.items():
        if isinstance(given, float):
            yield name, given
        elif given.attribute is not None:
            folder = _folder(file, group)
            found = file.kind.attributes(file.path, "") | (file.kind.attributes(file.path, folder) if folder else {})
            if given.attribute in found:
                yield name, found[given.attribute]
        elif given.array is not None:
            array = given.array.replace("*", group)
            values = file.values(array, f" of the parameter {name!r}").reshape(-1)
            if len(values) not in (1, count):
                raise DataError(
                    f"{file.path}, {array}: expected one number, or one for each of {count} trajectories, for the parameter "
                    f"{name!r}, got {len(values)}."
                )
            yield name, float(values[sample if len(values) == count else 0])


def _folder(file: _File, group: str) -> str:
    """The group of a trajectory: the path of its arrays up to what stands for the ``*``."""
    pattern = next((source.array for source in file.description.fields.values() if source.array), "") or ""
    head, star, _ = pattern.partition("*")
    return f"{head}{group}" if star else ""
