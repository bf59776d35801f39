"""Any system in The Well's layout: ``data/{train,valid,test}/<system>.hdf5`` and ``stats.yaml``, in the folder of the set.

Groups, attributes and types are those of ``docs/data_format.md`` of The Well (Ohana et al. 2024, arXiv:2412.00568). Fields
have MATEY's names; those constant in time, such as the force on incompressible flow, are left out. A tenth of the
trajectories each, the last ones, are for validation and testing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import h5py
import numpy as np
import yaml

from matey.simulate.ensemble import Ensemble, Trajectory
from matey.simulate.hdf5_layout import Hdf5Layout

STATS = "stats.yaml"
NO_NAMES = np.array([], dtype=h5py.string_dtype())


@dataclass(frozen=True)
class Contents:
    """What The Well's layout says of a system.

    Attributes:
        axes: names of the grid axes, in the order of the fields' shape.
        ends: lower and upper end of each axis, where its first and last cell or node begin and end.
        boundary: kind of boundary of each axis, ``WALL``, ``OPEN`` or ``PERIODIC``.
        fields: function of a trajectory as solved that returns fields by name, scalars ``(t, axes ...)`` and vectors
            ``(t, axes ..., component)``.
        scalars: names of the fields that are scalars.
        vectors: names of the fields that are vectors.
        interval: function of an ensemble that returns the time between frames.
        parameters: function of a seed that returns the numbers that set a trajectory apart.
        on_walls: whether values are at nodes, the first and last on the walls, or at the centres of cells.
        aspect: number of cells along each axis, divided by ``resolution``.
    """

    axes: tuple[str, str]
    ends: tuple[tuple[float, float], tuple[float, float]]
    boundary: tuple[str, str]
    fields: Callable[[Trajectory], Mapping[str, np.ndarray]]
    scalars: tuple[str, ...]
    vectors: tuple[str, ...]
    interval: Callable[[Ensemble], float]
    parameters: Callable[[int], Mapping[str, float]] = lambda seed: {}
    on_walls: bool = False
    aspect: tuple[float, float] = (1.0, 1.0)

    def coordinates(self, resolution: int) -> dict[str, np.ndarray]:
        """Return where the values lie along each axis."""
        places = {}
        for axis, (low, high), share in zip(self.axes, self.ends, self.aspect, strict=True):
            number = int(resolution * share)
            cells = (np.arange(number) + 0.5) / number
            places[axis] = low + (high - low) * (np.linspace(0, 1, number) if self.on_walls else cells)
        return places


@dataclass(frozen=True)
class WellLayout:
    """The files of a system; see ``ensemble.Layout``."""

    system: str
    contents: Contents

    def files(self, ensemble: Ensemble) -> Mapping[str, Sequence[int]]:
        """Return a file for each part and its seeds, then the statistics, which have none.

        Raises:
            ValueError: there are fewer trajectories than parts.
        """
        seeds = ensemble.seeds
        if len(seeds) < 3:
            raise ValueError(
                f"The Well's layout has parts train, valid and test: make 3 trajectories, not {len(seeds)}."
            )
        held_back = max(1, len(seeds) // 10)
        cuts = {"train": (0, -2 * held_back), "valid": (-2 * held_back, -held_back), "test": (-held_back, None)}
        files = {self._file(part): seeds[slice(*cut)] for part, cut in cuts.items()}
        return {**files, STATS: ()}

    def holds(self, path: Path, ensemble: Ensemble, seeds: Sequence[int]) -> bool:
        """Say whether a file records that it was made as this one would be."""
        if path.name != STATS:
            return self._hdf5.holds(path, ensemble, seeds)
        return path.read_text(encoding="utf-8").startswith(self._origin(ensemble))

    def num_done(self, path: Path, ensemble: Ensemble, seeds: Sequence[int]) -> int:
        """Return how many trajectories an interrupted ``write`` has left behind."""
        return self._hdf5.num_done(path, ensemble, seeds) if path.name != STATS else 0

    def write(self, path: Path, ensemble: Ensemble, seeds: Sequence[int], rest: Iterable[Trajectory]) -> None:
        """Write the trajectories of a part or, when the training part is there, its statistics."""
        if path.name != STATS:
            self._hdf5.write(path, ensemble, seeds, rest)
            return
        with h5py.File(path.parent / self._file("train")) as file:
            groups = ("t0_fields", "t1_fields")
            stats = {
                name: statistics(item, group == "t1_fields") for group in groups for name, item in file[group].items()
            }
        kinds = {kind: {name: of[kind] for name, of in stats.items()} for kind in next(iter(stats.values()))}
        path.write_text(self._origin(ensemble) + yaml.safe_dump(kinds), encoding="utf-8")

    def _file(self, part: str) -> str:
        return f"data/{part}/{self.system}.hdf5"

    @property
    def _hdf5(self) -> Hdf5Layout:
        return Hdf5Layout(
            files=self.files,
            configs=self._configs,
            read_configs=lambda file: {"config": str(file.attrs.get("config"))},
            begin=self._begin,
            add=partial(_add, self.contents),
        )

    def _configs(self, ensemble: Ensemble, seeds: Sequence[int]) -> dict[str, str]:
        sizes = {"resolution": ensemble.resolution, "num_frames": ensemble.num_frames}
        made = {"first_seed": seeds[0], "num_trajectories": len(seeds), **sizes, **ensemble.settings}
        return {"config": yaml.safe_dump({"system": self.system, **made}, sort_keys=False)}

    def _origin(self, ensemble: Ensemble) -> str:
        config = self._configs(ensemble, self.files(ensemble)[self._file("train")])["config"]
        return "".join(f"# {line}\n" for line in config.splitlines())

    def _begin(self, file: h5py.File, ensemble: Ensemble, seeds: Sequence[int]) -> None:
        """Write all but the values of the fields."""
        contents = self.contents
        file.attrs.update(self._configs(ensemble, seeds))
        file.attrs.update(dataset_name=self.system, grid_type="cartesian", n_spatial_dims=len(contents.axes))
        file.attrs["n_trajectories"] = len(seeds)
        file.attrs["simulation_parameters"] = list(ensemble.settings) or NO_NAMES
        file.attrs.update(ensemble.settings)
        file.create_group("dimensions").attrs["spatial_dims"] = list(contents.axes)
        places = contents.coordinates(ensemble.resolution)
        times = np.arange(ensemble.num_frames) * contents.interval(ensemble)
        for name, values in (("time", times), *places.items()):
            _dataset(file["dimensions"], name, values, time_varying=name == "time")
        for axis, kind in zip(contents.axes, contents.boundary, strict=True):
            condition = file.create_group(f"boundary_conditions/{axis}_{kind.lower()}")
            condition.attrs.update(associated_dims=[axis], associated_fields=NO_NAMES, bc_type=kind)
            condition.attrs.update(sample_varying=False, time_varying=False)
            condition["mask"] = np.isin(np.arange(len(places[axis])), (0, len(places[axis]) - 1))
        _begin_scalars(file, ensemble, {seed: contents.parameters(seed) for seed in seeds})
        shape = (len(seeds), ensemble.num_frames, *(len(values) for values in places.values()))
        for group, names, components in (("t0_fields", contents.scalars, ()), ("t1_fields", contents.vectors, (2,))):
            file.create_group(group).attrs["field_names"] = list(names) or NO_NAMES
            for name in names:
                field = file[group].create_dataset(name, (*shape, *components), dtype="f4")
                field.attrs.update(dim_varying=[True, True], sample_varying=True, time_varying=True)
        file.create_group("t2_fields").attrs["field_names"] = NO_NAMES


def statistics(field: h5py.Dataset, is_vector: bool) -> dict[str, float | list[float]]:
    """Return mean, standard deviation and root mean square of a field and of its change between frames, by component."""
    sums = {"": [0, 0.0, 0.0], "_delta": [0, 0.0, 0.0]}  # count, sum, sum of squares
    for trajectory in field:
        frames = trajectory.astype(np.float64).reshape(
            len(trajectory), -1, 2 if is_vector else 1
        )  # (t, axes, component)
        for kind, values in (("", frames), ("_delta", np.diff(frames, axis=0))):
            parts = (values[..., 0].size, values.sum(axis=(0, 1)), np.square(values).sum(axis=(0, 1)))
            sums[kind] = [total + part for total, part in zip(sums[kind], parts, strict=True)]
    found: dict[str, float | list[float]] = {}
    for kind, (count, total, squares) in sums.items():
        mean, square = total / count, squares / count
        numbers = {"mean": mean, "std": np.sqrt(np.maximum(square - mean**2, 0)), "rms": np.sqrt(square)}
        found |= {f"{name}{kind}": value.tolist() if is_vector else float(value[0]) for name, value in numbers.items()}
    return found


def _begin_scalars(file: h5py.File, ensemble: Ensemble, parameters: Mapping[int, Mapping[str, float]]) -> None:
    """Write the settings, one number for all trajectories, and the parameters, one for each."""
    varying = {name: [own[name] for own in parameters.values()] for name in next(iter(parameters.values()))}
    scalars = {**ensemble.settings, **varying}
    file.create_group("scalars").attrs["field_names"] = list(scalars) or NO_NAMES
    for name, values in scalars.items():
        _dataset(file["scalars"], name, values, sample_varying=name in varying)


def _dataset(
    group: h5py.Group, name: str, values: object, *, sample_varying: bool = False, time_varying: bool = False
) -> None:
    item = group.create_dataset(name, data=values, dtype="f4")
    item.attrs.update(sample_varying=sample_varying, time_varying=time_varying)


def _add(contents: Contents, file: h5py.File, position: int, trajectory: Trajectory) -> None:
    for name, values in contents.fields(trajectory).items():
        file["t1_fields" if name in contents.vectors else "t0_fields"][name][position] = values
