"""Writes any data set in The Well's layout: ``data/{train,valid,test}/<system>.hdf5`` and ``stats.yaml`` in a folder.

Trajectories of one grid, length and time step share a file; where a part has several kinds, the files are numbered. Fields
called ``velocity_x``, ``velocity_y``, one for each grid axis, become a vector, and one for each pair of axes a tensor; all
others are scalars. Given fields constant in time are written as fields that do not vary in time. Coordinates and times are
those of the data's files where all trajectories of a file share them; else they begin at half a cell and at 0.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

import h5py
import numpy as np
import yaml

from matey.data.splits import Split
from matey.data.trajectories import PARTS, DataError, Trajectory, TrajectorySet, check_storable
from matey.data.well_file import KINDS, STATS, Statistics, add_fields, add_scalars, begin, by_kind, group_of
from matey.data.windows import stretches

ROOM = 2**20  # bytes of a file beyond the values of its fields

_Kind = tuple[object, ...]


@dataclass(frozen=True)
class WellField:
    """A field of The Well, made of one or several of our fields.

    Attributes:
        name: name of the field in The Well's layout.
        order: 0 for a scalar, 1 for a vector, 2 for a tensor.
        members: numbers of our fields that are its components, in the order of the file.
        varies: whether it varies in time; else it is made of given fields.
        statistics: statistics of the field in the training part.
    """

    name: str
    order: int
    members: tuple[int, ...]
    varies: bool
    statistics: Statistics = field(default_factory=Statistics)


def write_the_well(
    data: TrajectorySet, split: Split, out: Path, on_trajectory: Callable[[], object] = lambda: None
) -> list[str]:
    """Write a data set; the folder appears when all of it is written.

    Args:
        data: the data set.
        split: the trajectories of each part.
        out: the folder, which must not exist.
        on_trajectory: function called when a trajectory is written, for a progress bar.

    Returns:
        Sentences on contents that the layout cannot hold.

    Raises:
        DataError: the folder exists, the disk is too full, the layout cannot express the data, or the data cannot be read.
        OSError: something cannot be written.
    """
    if out.exists():
        raise DataError(f"{out} exists already; choose another --out, or remove it.")
    if not split.train:
        raise DataError(
            f"{data.system}: no trajectory is in the training part, by whose statistics The Well's reader normalises; "
            "give it a share, or take data of which some is for training."
        )
    parameters = {name for about in data.trajectories for name in about.parameters}
    check_storable(data.system, (*data.fields, *_constant(data), *sorted(parameters)))
    varying = _fields(data, data.fields, {*_constant(data)}, varies=True)
    taken = {*data.fields, *(each.name for each in varying)}
    fields = [*varying, *_fields(data, _constant(data), taken, varies=False)]
    new = out.with_name(f".{out.name}.unfinished")
    shutil.rmtree(new, ignore_errors=True)
    try:
        for part in PARTS:
            kinds: dict[_Kind, list[int]] = {}
            for number in getattr(split, part):
                kinds.setdefault(_kind(data.trajectories[number]), []).append(number)
            for index, numbers in enumerate(kinds.values()):
                path = new / "data" / part / f"{data.system}{f'_{index}' if len(kinds) > 1 else ''}.hdf5"
                path.parent.mkdir(parents=True, exist_ok=True)
                _check_room(data, numbers, path.parent)
                with h5py.File(path, "w") as file:
                    _begin(file, data, numbers, fields)
                    for position, number in enumerate(numbers):
                        _add(file, data, number, position, fields, is_training=part == "train")
                        on_trajectory()
        kinds_of = by_kind({each.name: each.statistics for each in fields})
        (new / STATS).write_text(yaml.safe_dump(kinds_of), encoding="utf-8")
        new.rename(out)
    finally:
        shutil.rmtree(new, ignore_errors=True)
    units = [f"{name} in {unit}" for name, unit in _units(data) if unit not in "?1"]
    empty = [part for part in PARTS if not getattr(split, part)]
    return [
        *([f"No trajectory is in the parts {', '.join(empty)}, which are not written."] if empty else []),
        *(
            [f"Left out, since the layout has no fields that are given in time: {', '.join(data.varying)}."]
            if data.varying
            else []
        ),
        *([f"The layout has no place for units: {', '.join(units)}."] if units else []),
    ]


def _units(data: TrajectorySet) -> Iterator[tuple[str, str]]:
    """Yield fields, coordinates and times, each with its unit."""
    yield from zip(data.fields, data.units, strict=True)
    for axis in (*_axes(data.trajectories[0]), "time"):
        own = data.coordinates(axis, [0])
        yield axis, own.unit if own is not None else data.time_unit if axis == "time" else data.length_unit


def _constant(data: TrajectorySet) -> tuple[str, ...]:
    return tuple(name for name in data.given if name not in data.given_in_time)


def _axes(about: Trajectory) -> tuple[str, ...]:
    """Return the grid axes of a trajectory in The Well's order."""
    return tuple(axis for axis, end in zip("xyz", reversed(about.boundary), strict=True) if end != "none")


def _kind(about: Trajectory) -> _Kind:
    return about.grid, about.spacing, about.boundary, about.num_frames, f"{about.time_step:.5g}"


def _fields(data: TrajectorySet, names: Sequence[str], others: Collection[str], *, varies: bool) -> list[WellField]:
    """Combine components into vectors and tensors, except where the name is taken by a field or one of ``others``."""
    axes = _axes(data.trajectories[0])
    found: list[WellField] = []
    left = dict.fromkeys(names)
    for order in (2, 1):
        endings = ["_" + "".join(pair) for pair in product(axes, repeat=order)] if len(axes) > 1 else []
        for name in [*left] if endings else []:
            base = name.removesuffix(endings[0])
            components = [f"{base}{ending}" for ending in endings]
            taken = {"", *names, *others, *(each.name for each in found)}
            if base not in taken and all(component in left for component in components):
                members = tuple(names.index(component) for component in components)
                found.append(WellField(base, order, members, varies))
                left = {other: None for other in left if other not in components}
    return [*(WellField(name, 0, (names.index(name),), varies) for name in left), *found]


def _begin(file: h5py.File, data: TrajectorySet, numbers: Sequence[int], fields: Sequence[WellField]) -> None:
    """Write all but the values of the fields."""
    abouts = [data.trajectories[number] for number in numbers]
    first = abouts[0]
    boundary = {axis: first.boundary["zyx".index(axis)] for axis in _axes(first)}
    for axis, end in boundary.items():
        if end not in KINDS:
            raise DataError(
                f"{first.label}: the ends of {axis} are {end!r}, and The Well's layout needs to know which end is what; "
                "describe the boundary as wall, open or periodic."
            )
    places = {axis: _places(data, numbers, axis) for axis in boundary}
    times = data.coordinates("time", numbers)
    counted = np.arange(first.num_frames) * first.time_step
    ends = {axis: KINDS[end] for axis, end in boundary.items()}
    begin(file, data.system, len(numbers), counted if times is None else times.values, places, ends)
    alike, of_each = _parameters(abouts)
    add_scalars(file, alike, of_each)
    for each in fields:
        add_fields(file, each.order, [each.name], num_frames=first.num_frames if each.varies else None)


def _places(data: TrajectorySet, numbers: Sequence[int], axis: str) -> np.ndarray:
    """Return the coordinates of the cells along an axis."""
    if (own := data.coordinates(axis, numbers)) is not None:
        return own.values
    about, place = data.trajectories[numbers[0]], "zyx".index(axis)
    return (np.arange(about.grid[place]) + 0.5) * about.spacing[place]


def _parameters(abouts: Sequence[Trajectory]) -> tuple[Mapping[str, float], Mapping[str, np.ndarray]]:
    """Return the parameters that are the same for all trajectories, and arrays of the others, NaN where one has none."""
    names = dict.fromkeys(name for about in abouts for name in about.parameters)
    each = {name: np.array([about.parameters.get(name, math.nan) for about in abouts]) for name in names}
    alike = {name: float(values[0]) for name, values in each.items() if (values == values[0]).all()}
    return alike, {name: values for name, values in each.items() if name not in alike}


def _add(
    file: h5py.File, data: TrajectorySet, number: int, position: int, fields: Sequence[WellField], *, is_training: bool
) -> None:
    """Write the values of a trajectory, some frames at a time."""
    about = data.trajectories[number]
    last: np.ndarray | None = None
    for start, frames in stretches(data, number):
        between = None if last is None else np.concatenate([last, frames[:1]])  # changes between stretches count
        for each in (each for each in fields if each.varies):
            values = _turned(frames, each, about)
            file[group_of(each.order)][each.name][position, start : start + len(frames)] = values
            if is_training:
                each.statistics.add(values, len(each.members))
                if between is not None:
                    each.statistics.add_change(_turned(between, each, about), len(each.members))
        last = frames[-1:]
    if constant := [each for each in fields if not each.varies]:
        given = data.with_given(_constant(data)).read_given(number, 0, 1)
        for each in constant:
            values = _turned(given, each, about)
            file[group_of(each.order)][each.name][position] = values[0]
            if is_training:
                each.statistics.add(values, len(each.members))


def _turned(frames: np.ndarray, each: WellField, about: Trajectory) -> np.ndarray:
    """Return a field of frames ``(t, f, z, y, x)`` as the file has it, ``(t, x, y, z, component)`` without missing axes."""
    values = frames[:, list(each.members)].transpose(0, 4, 3, 2, 1)  # (t, x, y, z, f)
    sizes = [about.grid["zyx".index(axis)] for axis in _axes(about)]
    return values.reshape(len(frames), *sizes, *[len(sizes)] * each.order)


def _check_room(data: TrajectorySet, numbers: Sequence[int], folder: Path) -> None:
    """Raise DataError unless the disk has room for a file: HDF5 crashes when it closes a file on a full disk."""
    first, num_given = data.trajectories[numbers[0]], len(_constant(data))
    needed = 4 * len(numbers) * math.prod(first.grid) * (first.num_frames * len(data.fields) + num_given) + ROOM
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise DataError(
            f"{folder} has room for {free:,} bytes, and {needed:,} are to be written; choose another --out."
        )
