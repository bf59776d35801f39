"""Times forecasts of held-out windows, singly and in batches, in the same way for MATEY and for its peers."""

from __future__ import annotations

import statistics
import time

import torch

from matey.benchmark.machine import now
from matey.data import read_windows, spread_windows
from matey.evaluate.forecaster import Forecaster
from matey.evaluate.held_out import HeldOut
from matey.parallel.allocator import keep_freed_memory

TIMED = 5  # batches in the median, at least, after one for warm-up
BATCH = 16
MOST_TOKENS = 65536  # in a batch; a larger one takes minutes on a CPU


def forecast_speed(model: Forecaster, data: HeldOut, lead: int, tokens: float = 1.0) -> dict[str, float]:
    """Time forecasts at a lead, as a mean over the systems: CPU seconds of this thread, or wall time on a GPU.

    Args:
        model: the model.
        data: held-out trajectories.
        lead: lead time in snapshots.
        tokens: mean number of tokens of a sample, which limits how many samples are forecast together.

    Returns:
        The seconds ``forecast_seconds`` of a single forecast, and ``batch_seconds`` per forecast of 16 together, or of fewer
        if they would have too many tokens.
    """
    keep_freed_memory()  # for every model alike: the training of peers, timed in the same process, has set it already
    size = batch_of(tokens)  # as many alone as together: of five that take 10 ms each, the median varies by a half
    sizes = {"forecast_seconds": (1, max(TIMED, size)), "batch_seconds": (size, TIMED)}
    return {name: _forecast_seconds(model, data, lead, *of) for name, of in sizes.items()}


def batch_of(tokens: float) -> int:
    """Return the number of samples with ``tokens`` tokens that are forecast together."""
    return max(1, min(BATCH, int(MOST_TOKENS / tokens)))


def _forecast_seconds(model: Forecaster, data: HeldOut, lead: int, size: int, timed: int) -> float:
    """Time ``timed`` forecasts of ``size`` windows of each system; return the mean over the systems' medians, per window."""
    of_systems = []
    for number, trajectories in enumerate(data.trajectories):
        windows = spread_windows(
            data.sets[number], trajectories, data.num_frames, lead, size * (timed + 1), set_index=number
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
    """Return the CPU seconds of this thread, which other work on the cores does not lengthen; on a GPU, wall time."""
    return now("cuda") if device.type == "cuda" else time.thread_time()
