"""Writes any data set in The Well's layout: ``data/{train,valid,test}/<system>.hdf5`` and ``stats.yaml`` in a folder.

Trajectories of one grid, length and time step share a file; where a part has several kinds, the files are numbered. Fields
called ``velocity_x``, ``velocity_y``, one for each grid axis, become a vector, and one for each pair of axes a tensor; all
others are scalars. Given fields constant in time are written as fields that do not vary in time. Coordinates and times are
those of the data's files where all trajectories of a file share them; else they begin at half a cell and at 0. Forecasts use
the layout, too. Groups, attributes and types are those of ``docs/data_format.md`` of The Well (Ohana et al. 2024,
arXiv:2412.00568); ``n`` counts trajectories:

    t0_fields/<name>   (n, t, axes ...)                 scalars; without t where they are constant in time
    t1_fields/<name>   (n, t, axes ..., component)      vectors
    t2_fields/<name>   (n, t, axes ..., component, component)
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

import h5py
import numpy as np
import yaml

from matey.data.splits import Split
from matey.data.trajectories import PARTS, DataError, Trajectory, TrajectorySet, check_storable
from matey.data.windows import stretches

STATS, PARAMETERS = "stats.yaml", "simulation_parameters"
NO_NAMES = np.array([], dtype=h5py.string_dtype())
KINDS = {"periodic": "PERIODIC", "wall": "WALL", "no_flux": "WALL", "open": "OPEN"}
"""The Well's names for boundaries of the same kind at both ends of an axis."""

ROOM = 2**20  # bytes of a file beyond the values of its fields

_Kind = tuple[object, ...]


class Statistics:
    """Mean, deviation and root mean square of a field and of its change from frame to frame, by component."""

    def __init__(self) -> None:
        """Begin without values."""
        self.sums: dict[str, np.ndarray] = {}

    def add(self, before: np.ndarray, frames: np.ndarray, num_components: int) -> None:
        """Add frames ``(t, ..., component)``; ``before`` is the frame before them, or none."""
        both = np.concatenate([before, frames]).astype(np.float64)
        both = both.reshape(len(both), -1, num_components)  # (t, cell, component)
        for kind, values in (("", both[len(before) :]), ("_delta", np.diff(both, axis=0))):
            if len(values):
                count = np.full(num_components, float(values[..., 0].size))
                sums = [count, values.sum(axis=(0, 1)), np.square(values).sum(axis=(0, 1))]
                self.sums[kind] = self.sums.get(kind, 0) + np.stack(sums)  # (sum, component)


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
        (new / STATS).write_text(yaml.safe_dump(_statistics(fields)), encoding="utf-8")
        new.rename(out)
    finally:
        shutil.rmtree(new, ignore_errors=True)
    units = [f"{name} in {unit}" for name, unit in _units(data) if unit not in "?1"]
    empty = [part for part in PARTS if not getattr(split, part)]
    notes = {
        "No trajectory is in the parts, which are not written": empty,
        "Left out, since the layout has no fields that are given in time": data.varying,
        "The layout has no place for units": units,
    }
    return [f"{note}: {', '.join(names)}." for note, names in notes.items() if names]


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
        for each in (each for each in fields if each.varies):
            values = _turned(frames, each, about)
            file[group_of(each.order)][each.name][position, start : start + len(frames)] = values
            if is_training:
                before = _turned(frames[:0] if last is None else last, each, about)
                each.statistics.add(before, values, len(each.members))
        last = frames[-1:]
    if constant := [each for each in fields if not each.varies]:
        given = data.with_given(_constant(data)).read_given(number, 0, 1)
        for each in constant:
            values = _turned(given, each, about)
            file[group_of(each.order)][each.name][position] = values[0]
            if is_training:
                each.statistics.add(values[:0], values, len(each.members))


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


def begin(
    file: h5py.File,
    name: str,
    num_trajectories: int,
    times: np.ndarray,
    places: Mapping[str, np.ndarray],
    boundary: Mapping[str, str],
) -> None:
    """Write the description of all trajectories into a new file, with groups of fields that are still empty.

    Args:
        file: the file.
        name: name of the data set.
        num_trajectories: number of trajectories.
        times: ``(t,)``, times of the snapshots.
        places: coordinates along each grid axis, by its name, in the order of the fields' axes.
        boundary: kind of boundary, ``WALL``, ``OPEN`` or ``PERIODIC``, of each axis with the same kind at both ends.
    """
    file.attrs.update(dataset_name=name, grid_type="cartesian", n_spatial_dims=len(places))
    file.attrs["n_trajectories"] = num_trajectories
    file.create_group("dimensions").attrs["spatial_dims"] = list(places)
    for dimension, values in (("time", times), *places.items()):
        # The layout's float32 would round neighbouring times to one number, for instance seconds since 1970.
        is_exact = np.allclose(np.diff(values.astype("f4")), np.diff(values), rtol=1e-3, atol=0)
        _add_numbers(
            file["dimensions"], dimension, values, "f4" if is_exact else "f8", time_varying=dimension == "time"
        )
    file.create_group("boundary_conditions")
    for axis, kind in boundary.items():
        condition = file.create_group(f"boundary_conditions/{axis}_{kind.lower()}")
        condition.attrs.update(associated_dims=[axis], associated_fields=NO_NAMES, bc_type=kind)
        condition.attrs.update(sample_varying=False, time_varying=False)
        condition["mask"] = np.isin(np.arange(len(places[axis])), (0, len(places[axis]) - 1))
    for order in range(3):
        file.create_group(group_of(order)).attrs["field_names"] = NO_NAMES


def group_of(order: int) -> str:
    """Return the name of the group of scalars (order 0), vectors (1) or tensors (2)."""
    return f"t{order}_fields"


def add_scalars(
    file: h5py.File, of_all: Mapping[str, float], of_each: Mapping[str, Sequence[float] | np.ndarray]
) -> None:
    """Write the parameters of simulations: those common to all trajectories, and those with a value for each."""
    assert not {*of_all} & {*file.attrs, PARAMETERS}, "parameters that the layout has a meaning of its own for"
    file.attrs[PARAMETERS] = list(of_all) or NO_NAMES
    file.attrs.update(of_all)
    file.create_group("scalars").attrs["field_names"] = [*of_all, *of_each] or NO_NAMES
    for name, values in {**of_all, **of_each}.items():
        _add_numbers(file["scalars"], name, values, sample_varying=name in of_each)


def add_fields(
    file: h5py.File, order: int, names: Iterable[str], *, num_frames: int | None, fill: float | None = None
) -> None:
    """Add fields of an order, still without values; with ``num_frames`` None they are constant in time."""
    group, axes = file[group_of(order)], list(file["dimensions"].attrs["spatial_dims"])
    grid = [file["dimensions"][axis].shape[-1] for axis in axes]
    shape = (file.attrs["n_trajectories"], *([] if num_frames is None else [num_frames]), *grid, *[len(axes)] * order)
    for name in names:
        field = group.create_dataset(name, shape, dtype="f4", fillvalue=fill)
        field.attrs.update(dim_varying=[True] * len(axes), sample_varying=True, time_varying=num_frames is not None)
        if order == 2:
            field.attrs.update(symmetric=False, antisymmetric=False)
        group.attrs["field_names"] = [*group.attrs["field_names"], name]


def _statistics(fields: Sequence[WellField]) -> dict[str, dict[str, float | list[float]]]:
    """Return the content of ``stats.yaml``: by kind of number, then by field; a vector's has a number for each component."""
    kinds: dict[str, dict[str, float | list[float]]] = {}
    for each in fields:
        for kind, (count, total, squares) in each.statistics.sums.items():
            mean, square = total / count, squares / count
            numbers = {"mean": mean, "std": np.sqrt(np.maximum(square - mean**2, 0)), "rms": np.sqrt(square)}
            for name, value in numbers.items():
                kinds.setdefault(f"{name}{kind}", {})[each.name] = value.tolist() if len(value) > 1 else float(value[0])
    return kinds


def _add_numbers(
    group: h5py.Group,
    name: str,
    values: object,
    dtype: str = "f4",
    *,
    sample_varying: bool = False,
    time_varying: bool = False,
) -> None:
    item = group.create_dataset(name, data=values, dtype=dtype)
    item.attrs.update(sample_varying=sample_varying, time_varying=time_varying)
