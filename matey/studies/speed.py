"""How fast a model forecasts held-out windows, one at a time or many: the same for MATEY and for its peers."""

from __future__ import annotations

import statistics
import time

import torch

from matey.benchmark.machine import now
from matey.data import read_windows, spread_windows
from matey.evaluate.forecaster import Forecaster
from matey.evaluate.held_out import HeldOut
from matey.parallel.allocator import keep_freed_memory

TIMED = 5  # batches whose median is taken, after one that warms up
BATCH = 16
MOST_TOKENS = 65536  # in a batch: with more, a CPU takes minutes for it


def forecast_speed(model: Forecaster, data: HeldOut, lead: int, tokens: float = 1.0) -> dict[str, float]:
    """Time forecasts at a lead: mean over the systems, in CPU seconds of this thread, on a GPU by the clock.

    Args:
        model: the model.
        data: held-out trajectories.
        lead: lead time in snapshots.
        tokens: mean number of tokens of a sample, which limits how many are forecast together.

    Returns:
        Seconds by name: ``forecast_seconds`` of a forecast by itself, and ``batch_seconds`` of one of 16 together, of fewer
        where they would have too many tokens.
    """
    keep_freed_memory()  # of every model: peers are timed where they were trained, which does so already
    sizes = {"forecast_seconds": 1, "batch_seconds": batch_of(tokens)}
    return {name: _forecast_seconds(model, data, lead, size) for name, size in sizes.items()}


def batch_of(tokens: float) -> int:
    """Return how many samples of so many tokens are forecast together."""
    return max(1, min(BATCH, int(MOST_TOKENS / tokens)))


def _forecast_seconds(model: Forecaster, data: HeldOut, lead: int, size: int) -> float:
    """Time forecasts of ``size`` windows of each system at a time; return the mean over the systems, a window."""
    of_systems = []
    for number, trajectories in enumerate(data.trajectories):
        windows = spread_windows(
            data.sets[number], trajectories, data.num_frames, lead, size * (TIMED + 1), set_index=number
        )
        seconds = []
        for first in range(0, len(windows), size):
            (batch,) = read_windows(data.sets, windows[first : first + size], data.num_frames)
            start = _now(model.device)
            model.predict(batch)
            seconds.append((_now(model.device) - start) / batch.num_samples)
        of_systems.append(statistics.median(seconds[1:] or seconds))
    return statistics.fmean(of_systems)


def _now(device: torch.device) -> float:
    """Return the CPU seconds of this thread, which other work on the cores does not lengthen; on a GPU the clock."""
    return now("cuda") if device.type == "cuda" else time.thread_time()
