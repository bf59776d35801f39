"""Systems and ensembles to simulate, and the loop that solves an ensemble and hands it to its layout.

A system is an entry of ``catalogue.SYSTEMS``. Solvers know nothing of files, layouts nothing of numerics.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Protocol

import numpy as np

from matey.simulate.catalogue import CATALOGUE, Published, check_sizes

Trajectory = Mapping[str, np.ndarray]  # arrays of one trajectory, by their names in the file
Solve = Callable[["Ensemble", Sequence[int]], Sequence[Trajectory]]


@dataclass(frozen=True, kw_only=True)
class System(Published):
    """A system that ``tools/simulate.py`` can make.

    Attributes:
        solve: function of (ensemble, seeds) that returns the trajectory of each seed; the result must not depend on
            which seeds are solved together.
        layout: the layout of its files.
    """

    solve: Solve
    layout: Layout

    @classmethod
    def published(cls, name: str, solve: Solve, layout: Layout) -> System:
        """Return a system of the catalogue, with its solver and the layout of its files."""
        return cls(**vars(CATALOGUE[name]), solve=solve, layout=layout)

    def ensemble(self, settings: Mapping[str, float] | None = None, **sizes: int) -> Ensemble:
        """Return an ensemble of the published sizes and settings, except for those given."""
        for name in settings or {}:
            if name not in self.settings:
                raise ValueError(f"This system has no {name}; its settings are: {', '.join(self.settings) or 'none'}.")
        published = {name: getattr(self, name) for name in ("num_trajectories", "resolution", "num_frames")}
        return Ensemble(self, **(published | sizes), settings={**self.settings, **(settings or {})})


@dataclass(frozen=True)
class Ensemble:
    """Trajectories of one system that are made together. Trajectory ``i`` has the seed ``first_seed + i``."""

    system: System
    num_trajectories: int
    resolution: int
    num_frames: int
    first_seed: int = 0
    settings: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raise ValueError for sizes and settings that are out of range."""
        check_sizes(self.num_trajectories, self.resolution, self.num_frames, self.first_seed, self.settings)

    @property
    def seeds(self) -> range:
        """The seed of each trajectory."""
        return range(self.first_seed, self.first_seed + self.num_trajectories)

    @property
    def num_bytes(self) -> int:
        """Size of the data on disk."""
        return 4 * self.num_trajectories * self.num_frames * self.resolution**2 * self.system.num_values


class Layout(Protocol):
    """The files of an ensemble's trajectories; a file is identified by the seeds of its trajectories."""

    def files(self, ensemble: Ensemble) -> Mapping[str, Sequence[int]]:
        """Return the names of the files, and the seeds in each, in order."""

    def holds(self, path: Path, ensemble: Ensemble, seeds: Sequence[int]) -> bool:
        """Return whether a file holds the same data as ``write`` would make."""

    def num_done(self, path: Path, ensemble: Ensemble, seeds: Sequence[int]) -> int:
        """Return how many trajectories of a file, counted from the first, an interrupted ``write`` has finished."""

    def write(self, path: Path, ensemble: Ensemble, seeds: Sequence[int], rest: Iterable[Trajectory]) -> None:
        """Write a file that appears under its name only when it is whole; ``rest`` follows those that are done."""


def make(
    folder: Path,
    ensemble: Ensemble,
    num_workers: int = 1,
    overwrite: bool = False,
    show: Callable[[Iterator[Trajectory], int], Iterable[Trajectory]] = lambda trajectories, num: trajectories,
) -> list[Path]:
    """Write the missing files of an ensemble, and continue where an interrupted run stopped.

    Args:
        folder: the folder for the files, which is made if needed.
        ensemble: the ensemble to make.
        num_workers: number of threads.
        overwrite: whether to replace files that hold something else.
        show: function that wraps the trajectories and takes their number, to draw progress.

    Returns:
        The files that were written.

    Raises:
        ValueError: a file holds something else.
    """
    layout = ensemble.system.layout
    missing = {}
    for name, seeds in layout.files(ensemble).items():
        path = folder / name
        if not path.exists() or not layout.holds(path, ensemble, seeds):
            if path.exists() and not overwrite:
                raise ValueError(f"{path} holds other data; choose another --out, or replace it with --overwrite.")
            missing[path] = seeds
    for path in missing:
        path.parent.mkdir(parents=True, exist_ok=True)
    rests = {path: seeds[layout.num_done(path, ensemble, seeds) :] for path, seeds in missing.items()}
    to_solve = [seed for seeds in rests.values() for seed in seeds]
    solved = iter(show(solve(ensemble, to_solve, num_workers), len(to_solve)))
    for path, seeds in missing.items():
        layout.write(path, ensemble, seeds, islice(solved, len(rests[path])))
    return list(missing)


def solve(
    ensemble: Ensemble, seeds: Sequence[int], num_workers: int = 1, cells_per_batch: int = 2**15
) -> Iterator[Trajectory]:
    """Solve in batches on ``num_workers`` threads, and yield the trajectories in order.

    The last two arguments do not change the data. With 32,768 cells (eight trajectories at 64 x 64), operations are
    long enough to outweigh their overhead, and temporaries still fit the cache. A thread per batch scales better than
    many threads per operation, and suffers less from other processes on the same cores.
    """
    fair_share = -(-len(seeds) // num_workers)
    batch_size = max(1, min(cells_per_batch // ensemble.resolution**2, fair_share))
    pending: deque[Future[Sequence[Trajectory]]] = deque()
    pool = ThreadPoolExecutor(num_workers)
    try:
        for start in range(0, len(seeds), batch_size):
            pending.append(pool.submit(ensemble.system.solve, ensemble, seeds[start : start + batch_size]))
            if len(pending) > num_workers:  # not further ahead: the official ensemble does not fit in memory
                yield from pending.popleft().result()
        while pending:
            yield from pending.popleft().result()
    finally:  # an interrupt does not wait for running threads
        pool.shutdown(wait=False, cancel_futures=True)
