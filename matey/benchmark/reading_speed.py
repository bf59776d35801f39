"""Benchmarks how many windows per second are read from a data set, for comparison with the speed of training."""

from __future__ import annotations

import time
from itertools import islice
from typing import Any

from matey.data.stream import micro_batches
from matey.data.trajectories import TrajectorySet
from matey.data.windows import Mixture

ENDLESS = 10**9  # steps
LEAST = 8  # least number of timed micro-batches
HISTORY, MICRO_BATCH = 4, 8  # frames and windows, the defaults of training


def reading_speed(data: TrajectorySet, workers: tuple[int, ...], seconds: float) -> dict[str, Any]:
    """Read micro-batches as training does, for ``seconds`` with each number of workers; with 0, this process reads.

    Files just written or read are cached in main memory, so this measures the reader, not the disk.

    Returns:
        The keys ``system``, ``grid`` ``z, y, x``, ``num_fields`` of a frame, and ``windows_per_second`` by number of workers.

    Raises:
        DataError: see ``TrajectorySet.read``.
    """
    mixture = Mixture([data.with_given(())], [range(data.num_trajectories)], [1.0], HISTORY, lead_max=1, seed=0)
    rates = {number: _windows_per_second(mixture, number, seconds) for number in workers}
    about = {"system": data.system, "grid": data.trajectories[0].grid, "num_fields": len(data.fields)}
    return about | {"windows_per_second": rates}


def _windows_per_second(mixture: Mixture, workers: int, seconds: float) -> float:
    stream = micro_batches(mixture, 0, ENDLESS, MICRO_BATCH, 1, rank=0, num_ranks=1, workers=workers)
    # The first micro-batches wait for workers to start; the next were read meanwhile.
    for _ in islice(stream, 2 + 4 * workers):
        pass
    start, num_read = time.perf_counter(), 0
    while num_read < LEAST or time.perf_counter() - start < seconds:
        next(stream)
        num_read += 1
    elapsed = time.perf_counter() - start
    stream.close()
    return num_read * MICRO_BATCH / elapsed
