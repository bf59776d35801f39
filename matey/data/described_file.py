"""Checks the arrays of one file against its description, and returns the trajectories in it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import groupby
from pathlib import Path

import numpy as np

from matey.config import DataDescription
from matey.config.description import Axis, FieldSource, GridAxis, TimeSource
from matey.data.arrays.stored import StoredArray, as_number
from matey.data.axis_names import GRID
from matey.data.coordinates import UNEVEN_SPACE, UNEVEN_TIME, even_step, line_of, remedy_of_other
from matey.data.file_parameters import attributes_of, parameters_of
from matey.data.guessed_axes import axes_by_name
from matey.data.located import Located
from matey.data.numbered import in_order
from matey.data.opened_file import TIMES, OpenedFile
from matey.data.staggered import remedy_between
from matey.data.trajectories import DataError, Part, Trajectory
from matey.data.trajectory import NO_AXIS
from matey.mistakes import listed

MAX_TRAJECTORIES = 10**6  # in one file; a header that claims more is corrupt


def describe_file(file: OpenedFile, part: Part | None) -> list[Located]:
    """Return the trajectories of a file, or the pieces of trajectories that it holds, see ``DataDescription.snapshots``.

    Raises:
        DataError: the file does not fit the description.
    """
    description = file.description
    groups = _groups(file)
    of_steps = [[group] for group in groups]
    if description.snapshots == "arrays":
        of_steps = [[*steps] for _, steps in groupby(groups, lambda group: group[:-1])]
    return [
        located
        for steps in of_steps
        for number, group in enumerate(steps)
        for located in _trajectories(replace(file, group=group), part, (number, len(steps)))
    ]


def _trajectories(file: OpenedFile, part: Part | None, place: tuple[int, int]) -> Iterator[Located]:
    """Yield the trajectories, or pieces of them, of a file or of one of its groups.

    ``place`` holds the number of a snapshot within its file, and the number of snapshots there.
    """
    description = file.description
    in_pieces = description.snapshots is not None
    sizes: dict[str, int] = {}
    for field, source in description.fields.items():
        _note_sizes(file, field, source, sizes)
    num_taken = num_frames = sizes.get("time", 1)
    if not in_pieces:
        num_taken = check_frames(description, num_frames, file.path)
    count = sizes.get("trajectory", 1)
    if count > MAX_TRAJECTORIES:
        raise DataError(
            f"{file.path}: claims {count:,} trajectories, more than {MAX_TRAJECTORIES:,}; correct the axes."
        )
    steps = {axis: _spacing(file, axis, sizes) for axis in description.grid}
    grid_z, grid_y, grid_x = (sizes.get(axis, 1) for axis in "zyx")
    spacing_z, spacing_y, spacing_x = (abs(steps.get(axis, 1.0)) for axis in GRID)
    boundary_z, boundary_y, boundary_x = (description.boundary.get(axis, NO_AXIS) for axis in GRID)
    for field, source in description.given.items():
        _note_sizes(file, field, source, dict(sizes))
    of_axes = (*description.spacing.items(), ("time", description.time_step))
    along = {str(axis): file.named(name) for axis, name in of_axes if isinstance(name, str)}
    keys: dict[str, str] = {}
    of_fields: dict[str, StoredArray] = {}
    elsewhere: dict[str, tuple[Path, str]] = {}
    for field, source in (*description.fields.items(), *description.given.items()):
        _check_names(file, field, source, along)
        holder, name = file.array_of(field, source)
        key = name
        if holder is not file:
            key = f"{source.file}: {name}"  # the same for all files of a trajectory
            elsewhere[key] = holder.path, name
        keys[field], of_fields[key] = key, holder.arrays[name]
    stored = {name: file.find(name, TIMES if axis == "time" else "") for axis, name in along.items()} | of_fields
    names = tuple(keys[field] for field in description.fields)
    given = {field: keys[field] for field in description.given}
    turned = frozenset(axis for axis, step in steps.items() if step < 0)
    in_files = description.snapshots == "files" or description.concat is not None
    own_name = file.path.parent.name if in_files else file.path.stem
    named = file.group[:-1] if description.snapshots == "arrays" else file.group
    for sample in range(count):
        times = _times(file, num_frames, sample, count, place)
        about = Trajectory(
            source=file.path,
            name=named[0] if named else str(sample) if "trajectory" in sizes else own_name,
            num_frames=num_taken,
            grid=(grid_z, grid_y, grid_x),
            spacing=(spacing_z, spacing_y, spacing_x),
            boundary=(boundary_z, boundary_y, boundary_x),
            time_step=1.0 if in_pieces else _time_step(file, times),
            parameters=dict(parameters_of(file, sample, count)),
            split=part,
            conserved=description.conserved,
        )
        pieces_times = tuple(map(float, times)) if in_pieces and times is not None else ()
        yield Located(about, sample, file.group, names, given, along, stored, turned, elsewhere, pieces_times)


def check_frames(description: DataDescription, num_frames: int, path: Path) -> int:
    """Return how many snapshots of a trajectory with ``num_frames`` are used.

    Raises:
        DataError: no snapshot is used.
    """
    num_taken = len(range(description.first_frame, num_frames, description.stride))
    if num_taken == 0:
        raise DataError(f"{path}: has {num_frames} snapshots, but first_frame is {description.first_frame}; lower it.")
    return num_taken


def _groups(file: OpenedFile) -> list[tuple[str, ...]]:
    """Return the names that each ``*`` in the paths of the arrays stands for, snapshots in order."""
    pattern = file.first_array
    if "*" not in pattern:
        return [()]
    first = re.compile(re.escape(pattern).replace(r"\*", "([^/]+)"))
    found = sorted(match.groups() for name in file.arrays if (match := first.fullmatch(name)))
    if not found:
        raise DataError(
            f"{file.path}: expected arrays such as {pattern!r}, one for each "
            f"{'snapshot' if file.description.snapshots else 'trajectory'}, found {listed(file.arrays)}; "
            "correct the description."
        )
    if file.description.snapshots != "arrays":
        return found
    of_trajectory = groupby(found, lambda group: group[:-1])
    return [(*head, step) for head, groups in of_trajectory for step in in_order([group[-1] for group in groups])]


def _note_sizes(file: OpenedFile, field: str, source: FieldSource, sizes: dict[str, int]) -> None:
    """Add the axis lengths of a field's array to the known ``sizes``, with which they must agree."""
    file, name = file.array_of(field, source)
    stored = file.find(name, f" for the field {field!r}", may_be_mask=field in file.description.given)
    axes = file.description.axes_of(source)
    own: dict[Axis, int] = dict(zip(axes, stored.shape, strict=False))
    shared = {axis: size for axis, size in own.items() if axis != "component"}
    fits = len(axes) == len(stored.shape) and 0 not in stored.shape
    if not fits or any(sizes.setdefault(axis, size) != size for axis, size in shared.items()):
        expected = ", ".join(f"{axis} {sizes.get(axis, '')}".strip() for axis in axes)
        without_time = (
            "" if "time" in file.description.all_axes else ", which without time are those of a single snapshot"
        )
        remedy = (fits and remedy_between(shared, sizes)) or f"correct the axes of the description{without_time}"
        remedy = "the array is empty: leave this file out" if 0 in stored.shape else remedy
        raise DataError(
            f"{file.path}, {name}: expected the axes ({expected}) for the field {field!r}, got the shape {stored.shape}"
            f"{' on ' + ', '.join(stored.axes) if stored.axes else ''}; {remedy}."
        )
    if source.index is not None and source.index >= own["component"]:
        raise DataError(
            f"{file.path}, {name}: {field!r} is component {source.index} in the description, but there are "
            f"{own['component']}, counted from 0; correct the description."
        )


def _check_names(file: OpenedFile, field: str, source: FieldSource, along: Mapping[str, str]) -> None:
    """Refuse an array whose axis names contradict the description, and a field's own file with other coordinates.

    ``along`` names the coordinate array of each axis in the main file.
    """
    holder, name = file.array_of(field, source)
    axes, names = file.description.axes_of(source), holder.arrays[name].axes
    if names and (told := axes_by_name(names, axes)):
        raise DataError(
            f"{holder.path}, {name}: its axes are called {', '.join(names)}, and the description has "
            f"{', '.join(axes)}; write axes: [{', '.join(told)}] for {field!r}."
        )
    for axis, coordinates in along.items() if holder is not file else ():
        if axis not in axes or coordinates not in holder.arrays:
            continue
        use = TIMES if axis == "time" else ""
        ours, theirs = file.values(coordinates, use), holder.values(coordinates, use)
        if ours.shape != theirs.shape or not np.allclose(ours, theirs, rtol=0, atol=UNEVEN_SPACE * _distance(ours)):
            raise DataError(
                f"{holder.path}, {coordinates}: expected the same coordinates along {axis} for {field!r} as in {file.path}; "
                "all fields of a trajectory need one grid and the same times: interpolate them to these."
            )


def _distance(places: np.ndarray) -> float:
    """Return the mean distance between coordinates."""
    return float(np.ptp(places)) / max(1, places.size - 1)


def _spacing(file: OpenedFile, axis: GridAxis, sizes: Mapping[str, int]) -> float:
    """Return the cell spacing along an axis, negative where coordinates decrease; ``sizes`` holds the lengths of all axes."""
    given = file.description.spacing[axis]
    if isinstance(given, float):
        return given
    name, use = file.named(given), f" for the coordinates of {axis}"
    stored, size = file.values(name, use), sizes[axis]
    found = line_of(stored, size)
    if found is None:
        what = f"expected {size} coordinates of {axis}, got the shape {stored.shape}"
        raise DataError(f"{file.path}, {name}: {what}; {remedy_of_other(stored, size, axis)}.")
    places, along = found
    order = [each for each in file.description.axes_of(next(iter(file.description.fields.values()))) if each in GRID]
    if stored.shape == tuple(sizes[each] for each in order) and order[along] != axis:
        raise DataError(
            f"{file.path}, {name}: expected coordinates of {axis} that change along {axis}, got some of each cell that change "
            f"along {order[along]}; correct the order of the axes, or write the size of a cell instead."
        )
    sign = -1.0 if size > 1 and places[-1] < places[0] else 1.0
    return sign * even_step(sign * places, f"{file.path}, {name}", UNEVEN_SPACE, "resample the data on an even grid")


def _times(file: OpenedFile, size: int, sample: int, count: int, place: tuple[int, int]) -> np.ndarray | None:
    """Return the times of all snapshots of a trajectory or piece, None where neither an array nor an attribute gives them."""
    source = file.description.time_step
    if isinstance(source, float):
        return None
    if isinstance(source, TimeSource):
        if source.attribute is None:
            return None
        found = attributes_of(file)
        if (time := as_number(found.get(source.attribute))) is None:
            raise DataError(
                f"{file.path}: expected an attribute {source.attribute!r} with the time of the snapshot, found "
                f"{listed(name for name, value in found.items() if as_number(value) is not None)}; name another in time_step, "
                "or give the time between snapshots."
            )
        return np.array([time])
    name = file.named(source)
    times = file.values(name, TIMES)
    number, num_pieces = place
    if num_pieces > 1 and times.shape == (num_pieces,) and name == source:
        times = times[number : number + 1]  # one array of times, and each snapshot is an array
    times = times[sample] if times.shape == (count, size) else times.reshape(-1) if times.size == size else times
    if times.shape != (size,):
        raise DataError(
            f"{file.path}, {name}: expected {size} times, one for each snapshot, got the shape {times.shape}; correct the axes "
            "or time_step."
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
