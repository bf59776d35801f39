"""Runs what a launcher has started on several ranks, for the commands that forecast."""

from __future__ import annotations

from collections.abc import Callable

from matey.mistakes import Mistake
from matey.parallel.environment import Environment, find_environment, start_processes, stop_processes
from matey.process.ending import end_with_error
from matey.process.likely_place import likely_place

TIMEOUT = 3600.0  # seconds that ranks wait for one that still reads, writes or forecasts


def run_on_ranks(work: Callable[[Environment], None], threads: int | None) -> int:
    """Let the ranks meet, do the work on each, and part; return 0, or 2 for a mistake, which is said once.

    Args:
        work: function that does a rank's part.
        threads: CPU threads of a rank; by default as many as it has cores to itself.
    """
    try:
        environment = find_environment()
        start_processes(environment, TIMEOUT, threads)
        work(environment)
    except Mistake as error:
        return end_with_error(*likely_place(), f"error: {error}")
    return stop_processes()
