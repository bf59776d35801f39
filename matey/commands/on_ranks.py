"""Runs a command that forecasts on the ranks that a launcher has started."""

from __future__ import annotations

from collections.abc import Callable

from matey.mistakes import Mistake
from matey.parallel.environment import Environment, find_environment, start_processes, stop_processes
from matey.process.ending import end_with_error
from matey.process.likely_place import likely_place

TIMEOUT = 3600.0  # seconds that ranks wait for another that still reads, writes or forecasts


def run_on_ranks(work: Callable[[Environment], None], threads: int | None) -> int:
    """Connect the ranks, do the work on each, and disconnect; return 0, or 2 for a mistake, which is printed once.

    Args:
        work: function that does a rank's part.
        threads: CPU threads of a rank; by default its own number of cores.
    """
    try:
        environment = find_environment()
        start_processes(environment, TIMEOUT, threads)
        work(environment)
    except Mistake as error:
        return end_with_error(*likely_place(), f"error: {error}")
    return stop_processes()
