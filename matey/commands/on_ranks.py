"""Runs a command that forecasts: on the ranks that a launcher has started or, without a launcher, in this process."""

from __future__ import annotations

from collections.abc import Callable

import torch

from matey.config.flags import FlagError
from matey.mistakes import Mistake
from matey.parallel.environment import Environment, find_environment, keep_all_bits, start_processes, stop_processes
from matey.process.ending import end_with_error
from matey.process.launchers import likely_place

TIMEOUT = 3600.0  # seconds that ranks wait for another that still reads, writes or forecasts


def run_on_ranks_or_here(work: Callable[[torch.device], None], device: str, threads: int | None) -> int:
    """Do the work on each rank as `run_on_ranks` does, or in this process on a device by name; return the exit code.

    The device ``auto`` is the first GPU, if there is one.
    """
    if likely_place()[1] > 1:
        return run_on_ranks(lambda environment: work(environment.device), threads)
    if threads is not None:
        torch.set_num_threads(threads)
    keep_all_bits()
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    found = torch.device(device)
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise FlagError(f"--device {device} does not exist: PyTorch sees {torch.cuda.device_count()} GPUs; use cpu.")
    work(found)
    return 0


def run_on_ranks(work: Callable[[Environment], None], threads: int | None) -> int:
    """Connect the ranks, do the work on each, and disconnect; return 0, or 2 for a mistake, which is printed once.

    By default a rank has as many threads as cores of its own.
    """
    try:
        environment = find_environment()
        start_processes(environment, TIMEOUT, threads)
        work(environment)
    except Mistake as error:
        return end_with_error(*likely_place(), f"error: {error}")
    return stop_processes()
