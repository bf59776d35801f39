"""A layout with one file for each trajectory: the trajectories whose files exist are done."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from matey.simulate.ensemble import Ensemble, Trajectory


@dataclass(frozen=True)
class SingleFiles:
    """Files of one kind, made from four functions; see ``ensemble.Layout``.

    Attributes:
        path: function of (folder, seed) that returns the path of the trajectory's file.
        config: function of (ensemble, seed) that returns the settings that a file records, by which it is recognised
            later.
        read_config: function of a path that returns the result of ``config``, or None if another program wrote the
            file.
        write_one: function of (path, ensemble, seed, trajectory) that writes a file.
    """

    path: Callable[[Path, int], Path]
    config: Callable[[Ensemble, int], str]
    read_config: Callable[[Path], str | None]
    write_one: Callable[[Path, Ensemble, int, Trajectory], object]

    def files(self, ensemble: Ensemble) -> Mapping[str, Sequence[int]]:
        """Return the name of each trajectory's file, and its seed; ``config`` may raise ValueError if no file can hold it."""
        self.config(ensemble, ensemble.first_seed)
        return {self.path(Path(), seed).name: [seed] for seed in ensemble.seeds}

    def holds(self, path: Path, ensemble: Ensemble, seeds: Sequence[int]) -> bool:
        """Return whether a file records the settings with which this one would be made."""
        return self.read_config(path) == self.config(ensemble, seeds[0])

    def num_done(self, path: Path, ensemble: Ensemble, seeds: Sequence[int]) -> int:
        """Return 0: a trajectory without a file is not done."""
        return 0

    def write(self, path: Path, ensemble: Ensemble, seeds: Sequence[int], rest: Iterable[Trajectory]) -> None:
        """Write the one trajectory to a file that appears under its name only when it is whole."""
        (trajectory,) = rest
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as scratch:
            unfinished = Path(scratch) / path.name
            self.write_one(unfinished, ensemble, seeds[0], trajectory)
            os.replace(unfinished, path)
