"""A layout of HDF5 files that are filled one trajectory at a time, so that an interrupted run can continue."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py

from matey.simulate.ensemble import Ensemble, Trajectory

SLACK = 2**20
"""Free bytes that a disk needs beyond the data: HDF5 writes its own records when it closes the file."""


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
        """Return how many trajectories are in the unfinished file beside ``path``, zero if it is of another ensemble.

        Raises:
            BlockingIOError: another process writes the file; opened for writing, HDF5 would empty it before it notices.
        """
        try:
            with h5py.File(unfinished(path)) as file:
                return int(file.attrs["num_done"]) if file.attrs.get("made_as") == self._digest(ensemble, seeds) else 0
        except BlockingIOError:
            raise
        except OSError:  # no such file, or the process was killed in the middle of a write
            return 0

    def write(self, path: Path, ensemble: Ensemble, seeds: Sequence[int], rest: Iterable[Trajectory]) -> None:
        """Continue or begin the unfinished file, and give it its name when it is whole."""
        partial = unfinished(path)
        num_done = self.num_done(path, ensemble, seeds)
        num_bytes = ensemble.num_bytes // ensemble.num_trajectories
        _check_room(path.parent, num_bytes)
        with h5py.File(partial, "r+" if num_done else "w") as file:
            if num_done == 0:
                self.begin(file, ensemble, seeds)
                file.attrs["made_as"], file.attrs["num_done"] = self._digest(ensemble, seeds), 0
            for position, trajectory in zip(range(num_done, len(seeds)), rest, strict=True):
                _check_room(path.parent, num_bytes)
                self.add(file, position, trajectory)
                file.attrs.modify("num_done", position + 1)  # in place, so that a kill seldom leaves the file corrupt
                file.flush()
            del file.attrs["made_as"], file.attrs["num_done"]
        os.replace(partial, path)

    def _digest(self, ensemble: Ensemble, seeds: Sequence[int]) -> str:
        return hashlib.sha256(repr(self.configs(ensemble, seeds)).encode()).hexdigest()


def _check_room(folder: Path, num_bytes: int) -> None:
    """Raise OSError unless a disk has room for ``num_bytes``: HDF5 crashes when it closes a file on a full disk."""
    if shutil.disk_usage(folder).free < num_bytes + SLACK:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def unfinished(path: Path) -> Path:
    """Return the path of a file until it is whole."""
    return path.with_name(f".{path.name}.unfinished")
