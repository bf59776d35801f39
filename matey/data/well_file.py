"""Writes The Well's HDF5 layout, all but the values of the fields, and the statistics beside the file.

Simulations, converted data and forecasts use this layout. Groups, attributes and types are those of
``docs/data_format.md`` of The Well (Ohana et al. 2024, arXiv:2412.00568); ``n`` counts trajectories:

    t0_fields/<name>   (n, t, axes ...)                 scalars; without t where they are constant in time
    t1_fields/<name>   (n, t, axes ..., component)      vectors
    t2_fields/<name>   (n, t, axes ..., component, component)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import h5py
import numpy as np

STATS, PARAMETERS = "stats.yaml", "simulation_parameters"
NO_NAMES = np.array([], dtype=h5py.string_dtype())
KINDS = {"periodic": "PERIODIC", "wall": "WALL", "no_flux": "WALL", "open": "OPEN"}
"""The Well's names for boundaries of the same kind at both ends of an axis."""


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


class Statistics:
    """Mean, deviation and root mean square of a field and of its change from frame to frame, by component."""

    def __init__(self) -> None:
        """Begin without values."""
        self._sums: dict[str, np.ndarray] = {}

    def add(self, frames: np.ndarray, num_components: int) -> None:
        """Add frames ``(t, ..., component)`` that follow each other."""
        self._note("", _cells(frames, num_components))
        self.add_change(frames, num_components)

    def add_change(self, frames: np.ndarray, num_components: int) -> None:
        """Add the change from each frame to the next, and not the frames themselves."""
        if len(frames) > 1:
            self._note("_delta", np.diff(_cells(frames, num_components), axis=0))

    def _note(self, kind: str, values: np.ndarray) -> None:
        count = np.full(values.shape[2], float(values[..., 0].size))
        sums = np.stack([count, values.sum(axis=(0, 1)), np.square(values).sum(axis=(0, 1))])  # (sum, component)
        self._sums[kind] = self._sums.get(kind, 0) + sums

    def numbers(self) -> dict[str, float | list[float]]:
        """Return each statistic by its name in ``stats.yaml``; a vector's has a number for each component."""
        found: dict[str, float | list[float]] = {}
        for kind, (count, total, squares) in self._sums.items():
            mean, square = total / count, squares / count
            numbers = {"mean": mean, "std": np.sqrt(np.maximum(square - mean**2, 0)), "rms": np.sqrt(square)}
            for name, value in numbers.items():
                found[f"{name}{kind}"] = value.tolist() if len(value) > 1 else float(value[0])
        return found


def by_kind(fields: Mapping[str, Statistics]) -> dict[str, dict[str, float | list[float]]]:
    """Return statistics in the form of ``stats.yaml``: by kind of number, then by field."""
    kinds: dict[str, dict[str, float | list[float]]] = {}
    for name, of_field in fields.items():
        for kind, value in of_field.numbers().items():
            kinds.setdefault(kind, {})[name] = value
    return kinds


def _cells(frames: np.ndarray, num_components: int) -> np.ndarray:
    return frames.astype(np.float64).reshape(len(frames), -1, num_components)  # (t, cell, component)


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
