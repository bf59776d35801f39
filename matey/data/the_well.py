"""Files in The Well's layout: ``<name>/data/{train,valid,test}/*.hdf5``, any system, its own splits.

Fields lie in ``t0_fields`` (scalars), ``t1_fields`` (vectors) and ``t2_fields`` (tensors), each (n, t, axes ..., components
...), where ``n`` counts trajectories and axes along which a field does not vary are left out. As in The Well's own
reader, they are flattened to scalars, first those of t0, then t1, then t2: ``velocity`` on axes x, y becomes
``velocity_x, velocity_y``, a tensor ``D_xx, D_xy, D_yx, D_yy``. Fields constant in time are not predicted but given.

``dimensions/spatial_dims`` names the grid axes, x, y and z, in the order of the file. Units are not in the layout;
``stats.yaml`` is not read.
Source: The Well (Ohana et al. 2024, arXiv:2412.00568), ``docs/data_format.md``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from einops import rearrange

from matey.data.coordinates import UNEVEN_SPACE, even_step, mean_step, order_of
from matey.data.hdf5 import attribute_of, check_values, described_hdf5, hdf5_reader, read_part
from matey.data.stored import as_text
from matey.data.trajectories import (
    NO_AXIS,
    PARTS,
    Boundary,
    Cells,
    Coordinates,
    DataError,
    Part,
    Trajectory,
    TrajectorySet,
)

_KINDS: dict[str, Boundary] = {"WALL": "wall", "OPEN": "open", "PERIODIC": "periodic"}


def size_of(file: h5py.File, axis: str) -> int:
    """Return the number of cells or frames along an axis of the file.

    Raises:
        DataError: the coordinates are missing, empty or no numbers, or were never written.
    """
    item = member(file, f"dimensions/{axis}")
    shape = item.shape if isinstance(item, h5py.Dataset) and item.dtype.kind in "fiu" else None
    if not shape or 0 in shape:
        came = f"the shape {item.shape} of {item.dtype}" if isinstance(item, h5py.Dataset) else "a group"
        raise DataError(
            f"{file.filename}, dimensions/{axis}: expected numbers along {axis}, one or more, got {came}; leave this file out."
        )
    return shape[-1]


def step_of(file: h5py.File, axis: str, index: int) -> float:
    """Return the time between the frames of a trajectory, or the size of its cells along a grid axis of the file."""
    places, label = places_of(file, axis, index), f"{file.filename}, dimensions/{axis}"
    return mean_step(places, label) if axis == "time" else even_step(places, label, UNEVEN_SPACE, "resample the data")


def places_of(file: h5py.File, axis: str, index: int) -> np.ndarray:
    """Return the coordinates of a trajectory, in float64; of a moving grid, those of the first frame."""
    item = member(file, f"dimensions/{axis}")
    places = item[index] if attribute(item, "sample_varying") else item[...]
    return np.asarray(places.reshape(-1, places.shape[-1])[0], dtype=np.float64)


def boundary_of(file: h5py.File, axis: str) -> Boundary:
    """Return the kind of an axis's ends, open by default; a mask over several axes counts only where it covers a whole face."""
    ends: list[Boundary] = ["open", "open"]
    for condition in file.get("boundary_conditions", {}).values():
        axes = [as_text(name) for name in attribute(condition, "associated_dims")]
        if axis in axes:
            kind = _kind(condition)
            mask = member(condition, "mask")[...]
            mask = mask.reshape(-1, *mask.shape[-len(axes) :]).all(axis=0)  # a varying mask counts where all agree
            mask = np.moveaxis(mask, axes.index(axis), 0)
            ends = [kind if mask[end].all() else before for end, before in zip((0, -1), ends, strict=True)]
    return ends[0] if ends[0] == ends[1] else "mixed"


def _kind(condition: h5py.Group) -> Boundary:
    name = as_text(attribute(condition, "bc_type")).upper()
    if name not in _KINDS:
        raise DataError(
            f"{condition.file.filename}, {condition.name}: expected bc_type {', '.join(_KINDS)}, got {name!r}; "
            f"write one of these."
        )
    return _KINDS[name]


def parameters_of(file: h5py.File, index: int) -> dict[str, float]:
    """Return the scalars that are single numbers, constant in time."""
    found = {}
    for name, item in file.get("scalars", {}).items():
        if item.dtype.kind in "fiu" and not attribute(item, "time_varying"):
            check_values(item)
            is_own = bool(attribute(item, "sample_varying"))
            if math.prod(item.shape[is_own:]) == 1:
                found[name] = float(np.reshape(item[index] if is_own else item[()], ()))
    return found


def member(group: h5py.Group, name: str) -> h5py.Group | h5py.Dataset:
    """Return a group or dataset that must be there."""
    item = group.get(name)
    if item is None:
        raise DataError(
            f"{group.file.filename}: expected {name!r}, as The Well's layout has it, found none; write it again."
        )
    check_values(item)
    return item


def attribute(item: h5py.HLObject, name: str) -> Any:  # noqa: ANN401 (an attribute is of any type)
    """Return an attribute that must be there."""
    if (value := attribute_of(item, name)) is None:
        raise DataError(
            f"{item.file.filename}, {item.name}: expected the attribute {name!r}, as The Well's layout has it, found "
            f"only {', '.join(item.attrs) or 'none'}; write it again."
        )
    return value


GROUPS = ("t0_fields", "t1_fields", "t2_fields")
CARTESIAN = "cartesian"


@dataclass(frozen=True)
class StoredField:
    """A scalar, vector or tensor as it lies on disk.

    Attributes:
        dataset: name of the dataset in the file.
        names: names of its components, flattened.
        per_trajectory: whether the first axis counts trajectories; otherwise all trajectories share the same values.
        varies: whether the field varies along each grid axis of the file; otherwise the axis is left out.
    """

    dataset: str
    names: tuple[str, ...]
    per_trajectory: bool
    varies: tuple[bool, ...]


class WellFile(TrajectorySet):
    """One file of The Well, which holds trajectories of the same length and grid."""

    def __init__(self, path: Path) -> None:
        """Describe the trajectories of ``path``.

        Raises:
            DataError: the file lacks something that the layout requires, or a field does not fit the dimensions.
        """
        with described_hdf5(path) as file:
            self.system = as_text(attribute(file, "dataset_name"))
            if (kind := as_text(attribute_of(file, "grid_type", CARTESIAN))).lower() != CARTESIAN:
                raise DataError(
                    f"{path}: expected a cartesian grid, got the grid_type {kind!r}; other coordinates are not supported: "
                    "resample the data on an even cartesian grid."
                )
            self._axes = tuple(as_text(name) for name in attribute(member(file, "dimensions"), "spatial_dims"))
            if sorted(self._axes) not in (["x"], ["x", "y"], ["x", "y", "z"]):
                raise DataError(
                    f"{path}, dimensions: expected x, x and y, or x, y and z in the attribute 'spatial_dims', got "
                    f"{self._axes}; write the file again."
                )
            self._order = order_of(self._axes)
            stored, constant = ([_stored_field(file, name, self._axes) for name in names] for names in _datasets(file))
            num_trajectories = int(attribute(file, "n_trajectories"))
            sizes, num_frames = [size_of(file, axis) for axis in self._axes], size_of(file, "time")
            for field in (*stored, *constant):
                _check_shape(file, field, sizes, num_trajectories, [num_frames] * (field in stored))
            self.trajectories = tuple(_describe(file, path, self._axes, num_trajectories))
        self._stored = tuple(stored)
        self.fields = tuple(name for field in stored for name in field.names)
        self.units = ("?",) * len(self.fields)
        self._constant = {name: (field, number) for field in constant for number, name in enumerate(field.names)}
        self.given = tuple(self._constant)

    def _read_frames(self, trajectory: int, start: int, stop: int, cells: Cells) -> np.ndarray:
        return np.concatenate(
            [self._read(field, trajectory, cells, slice(start, stop)) for field in self._stored], axis=1
        )

    def _read_coordinates(self, axis: str, trajectories: Sequence[int]) -> Iterator[Coordinates | None]:
        if axis not in ("time", *self._axes):
            yield from super()._read_coordinates(axis, trajectories)
            return
        with described_hdf5(self.trajectories[0].source) as file:
            yield from (Coordinates(places_of(file, axis, number), "?") for number in trajectories)

    def _read_given(self, trajectory: int, name: str, start: int, stop: int, cells: Cells) -> np.ndarray:
        field, number = self._constant[name]
        return self._read(field, trajectory, cells)[:, number]

    def _read(self, field: StoredField, trajectory: int, cells: Cells, *times: slice) -> np.ndarray:
        """Return frames ``(t, f, z, y, x)`` of a field in a box; without ``times``, the one of a field constant in time."""
        sides = [cells["zyx".index(axis)] for axis in self._axes]
        grid = [side.stop - side.start for side in sides]
        part = (side for side, varies in zip(sides, field.varies, strict=True) if varies)
        index: list[int | slice] = [*[trajectory] * field.per_trajectory, *times, *part]
        frames = read_part(self.trajectories[trajectory].source, field.dataset, tuple(index))
        kept = [size if varies else 1 for size, varies in zip(grid, field.varies, strict=True)]
        frames = frames.reshape(-1, *kept, len(field.names))  # (t, axes of the file ..., f)
        frames = np.broadcast_to(frames, (len(frames), *grid, len(field.names)))
        missing = " ".join(axis if axis in self._axes else "1" for axis in "zyx")
        return rearrange(frames, f"t {' '.join(self._axes)} f -> t f {missing}")


READER = hdf5_reader(
    layout="The Well (groups 't0_fields', 't1_fields', 't2_fields', 'dimensions', 'boundary_conditions')",
    holds=lambda file: any(isinstance(file.get(name), h5py.Group) for name in GROUPS),  # opening names what is missing
    open=WellFile,
)


def _datasets(file: h5py.File) -> tuple[list[str], list[str]]:
    """Return the datasets of fields that vary in time, and of those that do not, in The Well's order."""
    varying: list[str] = []
    constant: list[str] = []
    for group in GROUPS:
        names = [as_text(name) for name in attribute(file[group], "field_names")] if group in file else []
        for name in (f"{group}/{name}" for name in names):
            (varying if attribute(member(file, name), "time_varying") else constant).append(name)
    if not varying:
        raise DataError(f"{file.filename}: expected a field that varies in time in {', '.join(GROUPS)}, found none.")
    return varying, constant


def _stored_field(file: h5py.File, dataset: str, axes: tuple[str, ...]) -> StoredField:
    group, name = dataset.split("/")
    components = ["".join(component) for component in product(axes, repeat=GROUPS.index(group))]
    item = member(file, dataset)
    return StoredField(
        dataset=dataset,
        names=tuple(f"{name}_{component}" if component else name for component in components),
        per_trajectory=bool(attribute(item, "sample_varying")),
        varies=tuple(bool(varies) for varies in attribute(item, "dim_varying")),
    )


def _check_shape(file: h5py.File, field: StoredField, grid: list[int], num_trajectories: int, time: list[int]) -> None:
    order = GROUPS.index(field.dataset.split("/")[0])
    lead = [num_trajectories] * field.per_trajectory
    kept = [size for size, varies in zip(grid, field.varies, strict=True) if varies]
    item = file[field.dataset]
    expected, came = (*lead, *time, *kept, *[len(grid)] * order), item.shape
    if came != expected or item.dtype.kind not in "fiub":
        raise DataError(
            f"{file.filename}, {field.dataset}: expected real numbers of shape {expected} to go with 'dimensions', got {came} "
            f"of {item.dtype}; write the file again."
        )


def _describe(file: h5py.File, path: Path, axes: tuple[str, ...], num_trajectories: int) -> Iterator[Trajectory]:
    along = [axis if axis in axes else None for axis in "zyx"]  # None where the file has no such axis
    grid_z, grid_y, grid_x = (1 if axis is None else size_of(file, axis) for axis in along)
    boundary_z, boundary_y, boundary_x = (NO_AXIS if axis is None else boundary_of(file, axis) for axis in along)
    num_frames = size_of(file, "time")
    for index in range(num_trajectories):
        step_z, step_y, step_x = (1.0 if axis is None else step_of(file, axis, index) for axis in along)
        yield Trajectory(
            source=path,
            name=str(index),
            num_frames=num_frames,
            grid=(grid_z, grid_y, grid_x),
            spacing=(step_z, step_y, step_x),
            boundary=(boundary_z, boundary_y, boundary_x),
            time_step=step_of(file, "time", index),
            parameters=parameters_of(file, index),
            split=_split_of(path),
        )


def _split_of(path: Path) -> Part | None:
    named = (part for part in PARTS if part == path.parent.name)
    return next(named, None) if path.parent.parent.name == "data" else None
