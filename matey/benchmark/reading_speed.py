"""Benchmarks how many windows a second are read from a data set, for comparison with those that a model trains on."""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import islice

from matey.benchmark.speed import measure
from matey.benchmark.speed_cases import Case
from matey.data.mixture import Mixture
from matey.data.stream import micro_batches
from matey.data.trajectories import TrajectorySet

ENDLESS = 10**9  # steps
LEAST = 8  # micro-batches that are timed
HISTORY, MICRO_BATCH = 4, 8  # frames and windows, as training has them by default


@dataclass(frozen=True)
class ReadingSpeed:
    """The speed at which one system is read.

    Attributes:
        system: name of the PDE system.
        grid: cells along ``z, y, x``.
        num_fields: number of fields of a frame.
        windows_per_second: windows per second by number of workers; 0 workers reads in the training process.
    """

    system: str
    grid: tuple[int, int, int]
    num_fields: int
    windows_per_second: dict[int, float]


def reading_speed(data: TrajectorySet, workers: tuple[int, ...], seconds: float) -> ReadingSpeed:
    """Read micro-batches as training does, for ``seconds`` with each number of workers.

    Files that were just written, or read before, lie in main memory: what is measured is the reader, not the disk.

    Raises:
        DataError: see ``TrajectorySet.read``.
    """
    mixture = Mixture([data.with_given(())], [range(data.num_trajectories)], [1.0], HISTORY, lead_max=1, seed=0)
    rates = {number: _windows_per_second(mixture, number, seconds) for number in workers}
    return ReadingSpeed(data.system, data.trajectories[0].grid, len(data.fields), rates)


def training_speed(case: Case, repeat: int) -> float:
    """Return the windows per second that training steps of a case take in."""
    (speed,) = measure([case], repeat)
    return case.batch / speed.step_seconds


def _windows_per_second(mixture: Mixture, workers: int, seconds: float) -> float:
    stream = micro_batches(mixture, 0, ENDLESS, MICRO_BATCH, 1, rank=0, num_ranks=1, workers=workers)
    # The first wait for workers to start; then come those that were read while they did.
    for _ in islice(stream, 2 + 4 * workers):
        pass
    start, num_read = time.perf_counter(), 0
    while num_read < LEAST or time.perf_counter() - start < seconds:
        next(stream)
        num_read += 1
    elapsed = time.perf_counter() - start
    stream.close()
    return num_read * MICRO_BATCH / elapsed
