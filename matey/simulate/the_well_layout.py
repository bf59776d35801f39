"""Any system in The Well's layout: ``data/{train,valid,test}/<system>.hdf5`` and ``stats.yaml``, in the folder of the set.

The layout itself is in `matey.well_file`. Fields have MATEY's names; those constant in time, such as the force on
incompressible flow, are left out. A tenth of the trajectories each, the last ones, are for validation and testing.
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
from matey.well_file import STATS, Statistics, add_fields, add_scalars, begin, by_kind, group_of


@dataclass(frozen=True)
class Contents:
    """A system's contents in The Well's layout.

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
        fields: dict[str, Statistics] = {}
        with h5py.File(path.parent / self._file("train")) as file:
            for num_components, names in ((1, self.contents.scalars), (2, self.contents.vectors)):
                for name in names:
                    fields[name] = Statistics()
                    for trajectory in file[group_of(num_components - 1)][name]:
                        fields[name].add(trajectory, num_components)
        path.write_text(self._origin(ensemble) + yaml.safe_dump(by_kind(fields)), encoding="utf-8")

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
        places = contents.coordinates(ensemble.resolution)
        times = np.arange(ensemble.num_frames) * contents.interval(ensemble)
        begin(file, self.system, len(seeds), times, places, dict(zip(contents.axes, contents.boundary, strict=True)))
        parameters = [contents.parameters(seed) for seed in seeds]
        add_scalars(file, ensemble.settings, {name: [own[name] for own in parameters] for name in parameters[0]})
        for order, names in enumerate((contents.scalars, contents.vectors)):
            add_fields(file, order, names, num_frames=ensemble.num_frames)


def _add(contents: Contents, file: h5py.File, position: int, trajectory: Trajectory) -> None:
    for name, values in contents.fields(trajectory).items():
        file[group_of(int(name in contents.vectors))][name][position] = values
