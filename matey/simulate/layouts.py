"""Layouts of files: HDF5 filled one trajectory at a time, so that an interrupted run can continue, and a file for each."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import yaml

from matey.process.signals import interrupts_wait
from matey.simulate.ensemble import Ensemble, Trajectory


def _add_arrays(file: h5py.File, position: int, trajectory: Trajectory) -> None:
    for name, values in trajectory.items():
        file[name][position] = values


@dataclass(frozen=True)
class Hdf5Layout:
    """Files of one kind, made from a few functions; see ``ensemble.Layout``.

    Attributes:
        files: function of an ensemble that returns the names of its files and the seeds in each.
        configs: function of (ensemble, seeds) that returns the settings that a file records, by which it is recognised
            later.
        begin: function of (open file, ensemble, seeds) that writes everything that does not depend on the solution.
        read_configs: function of an open file that returns the result of ``configs``, or something else if another
            program wrote it; by default the root's attribute ``config``.
        add: function of (open file, position in it, trajectory) that writes one trajectory; by default each of its arrays
            into the one of the same name.
    """

    files: Callable[[Ensemble], Mapping[str, Sequence[int]]]
    configs: Callable[[Ensemble, Sequence[int]], Mapping[str, str]]
    begin: Callable[[h5py.File, Ensemble, Sequence[int]], None]
    read_configs: Callable[[h5py.File], Mapping[str, str]] = lambda file: {"config": str(file.attrs.get("config"))}
    add: Callable[[h5py.File, int, Trajectory], None] = _add_arrays

    def holds(self, path: Path, ensemble: Ensemble, seeds: Sequence[int]) -> bool:
        """Return whether a file records the settings with which this one would be made."""
        try:
            with h5py.File(path) as file:
                return self.read_configs(file) == self.configs(ensemble, seeds)
        except (OSError, RuntimeError, KeyError):  # not an HDF5 file, or a damaged one
            return False

    def num_done(self, path: Path, ensemble: Ensemble, seeds: Sequence[int]) -> int:
        """Return how many trajectories are in the unfinished file beside ``path``, zero if it is of another ensemble."""
        try:
            with h5py.File(unfinished(path)) as file:
                return int(file.attrs["num_done"]) if file.attrs.get("made_as") == self._digest(ensemble, seeds) else 0
        except OSError:  # no such file, or the process was killed in the middle of a write
            return 0

    def write(self, path: Path, ensemble: Ensemble, seeds: Sequence[int], rest: Iterable[Trajectory]) -> None:
        """Continue or begin the unfinished file, and give it its name when it is whole."""
        partial = unfinished(path)
        num_done = self.num_done(path, ensemble, seeds)
        with h5py.File(partial, "r+" if num_done else "w") as file:
            if num_done == 0:
                with interrupts_wait():
                    self.begin(file, ensemble, seeds)
                    file.attrs["made_as"], file.attrs["num_done"] = self._digest(ensemble, seeds), 0
            for position, trajectory in zip(range(num_done, len(seeds)), rest, strict=True):
                with interrupts_wait():
                    self.add(file, position, trajectory)
                    # In place, so that a kill seldom leaves the file corrupt.
                    file.attrs.modify("num_done", position + 1)
                    file.flush()
            del file.attrs["made_as"], file.attrs["num_done"]
        os.replace(partial, path)

    def _digest(self, ensemble: Ensemble, seeds: Sequence[int]) -> str:
        return hashlib.sha256(repr(self.configs(ensemble, seeds)).encode()).hexdigest()


def unfinished(path: Path) -> Path:
    """Return the path of a file until it is whole."""
    return path.with_name(f".{path.name}.unfinished")


@dataclass(frozen=True)
class SingleFiles:
    """Files of one kind, made from four functions; see ``ensemble.Layout``.

    Attributes:
        name: function of a seed that returns the name of the trajectory's file.
        config: function of (ensemble, seed) that returns the settings that a file records, by which it is recognised
            later.
        read_config: function of a path that returns the result of ``config``, or None if another program wrote the
            file; errors of reading count as another program's.
        write_one: function of (path, ensemble, seed, trajectory) that writes a file.
    """

    name: Callable[[int], str]
    config: Callable[[Ensemble, int], str]
    read_config: Callable[[Path], str | None]
    write_one: Callable[[Path, Ensemble, int, Trajectory], object]

    def files(self, ensemble: Ensemble) -> Mapping[str, Sequence[int]]:
        """Return the name of each trajectory's file, and its seed; ``config`` may raise ValueError if no file can hold it."""
        self.config(ensemble, ensemble.first_seed)
        return {self.name(seed): [seed] for seed in ensemble.seeds}

    def holds(self, path: Path, ensemble: Ensemble, seeds: Sequence[int]) -> bool:
        """Return whether a file records the settings with which this one would be made."""
        expected = self.config(ensemble, seeds[0])
        try:
            return self.read_config(path) == expected
        except (OSError, ValueError, TypeError, IndexError, EOFError):  # a file of another format, or truncated
            return False

    def num_done(self, path: Path, ensemble: Ensemble, seeds: Sequence[int]) -> int:
        """Return 0: a trajectory without a file is not done."""
        return 0

    def write(self, path: Path, ensemble: Ensemble, seeds: Sequence[int], rest: Iterable[Trajectory]) -> None:
        """Write the one trajectory to a file that appears under its name only when it is whole."""
        (trajectory,) = rest
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as scratch:
            unfinished = Path(scratch) / path.name
            with interrupts_wait():
                self.write_one(unfinished, ensemble, seeds[0], trajectory)
            os.replace(unfinished, path)


@dataclass(frozen=True)
class SquareGroups:
    """PDEBench's files with one group per trajectory, on ``[-half_width, half_width]^2``: dam break and diffusion-reaction.

    PDEBench's own readers take the grid from group 0023, so they need at least 24 trajectories; MATEY does not.

    Unlike the official diffusion-reaction file, nothing is compressed: lzf makes these digits no smaller (0.4 % larger
    at 64 x 64), takes as long as the solver, and with the official chunks a reader of one frame has to unpack 26.
    """

    half_width: float
    frame_interval: float
    config: Callable[[int, int, int], dict[str, Any]]  # from (seed, resolution, number of frames)

    def layout(self, file_name: str) -> Hdf5Layout:
        """Return the layout of one file of that name."""
        return Hdf5Layout(
            files=lambda ensemble: {file_name: ensemble.seeds},
            configs=self.configs,
            read_configs=lambda file: {name: str(item.attrs.get("config")) for name, item in file.items()},
            begin=self.begin,
            add=lambda file, position, trajectory: file[group(position)]["data"].write_direct(trajectory["data"]),
        )

    def configs(self, ensemble: Ensemble, seeds: Sequence[int]) -> dict[str, str]:
        """Return the YAML text that records each trajectory, by name of its group."""
        sides = {"x_left": -1, "x_right": 1, "y_bottom": -1, "y_top": 1}
        square = {name: side * self.half_width for name, side in sides.items()}
        configs = {}
        for position, seed in enumerate(seeds):
            config = self.config(seed, ensemble.resolution, ensemble.num_frames)
            config["sim"] |= square | {"seed": seed}
            configs[group(position)] = yaml.safe_dump(config, sort_keys=False)
        return configs

    def begin(self, file: h5py.File, ensemble: Ensemble, seeds: Sequence[int]) -> None:
        """Make the groups, with room for the data."""
        spacing = 2 * self.half_width / ensemble.resolution
        centres = (np.arange(ensemble.resolution) + 0.5) * spacing - self.half_width
        times = np.linspace(0, (ensemble.num_frames - 1) * self.frame_interval, ensemble.num_frames)
        shape = (ensemble.num_frames, ensemble.resolution, ensemble.resolution, ensemble.system.num_values)
        for name, config in self.configs(ensemble, seeds).items():
            file.create_group(name).attrs["config"] = config
            file[name].create_dataset("data", shape, dtype="f4")
            for axis, values in (("x", centres), ("y", centres), ("t", times)):
                file[name].create_dataset(f"grid/{axis}", data=values, dtype="f4")


def group(position: int) -> str:
    """Return the name of the group of a trajectory."""
    return f"{position:04d}"
