"""Times forecasts of held-out windows, singly and in batches, in the same way for MATEY and for its peers."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from matey.benchmark.machine import now
from matey.data import Window, read_windows, spread_windows
from matey.evaluate.forecaster import Forecaster
from matey.evaluate.held_out import HeldOut
from matey.process.resources import keep_freed_memory

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
        for own in itertools.islice(itertools.cycle(batches_of(windows, size)), timed + 1):
            (batch,) = read_windows(data.sets, own, data.num_frames)
            start = _now(model.device)
            model.predict(batch)
            seconds.append((_now(model.device) - start) / batch.num_samples)
        of_systems.append(statistics.median(seconds[1:]))
    return statistics.fmean(of_systems)


def batches_of(windows: Sequence[Window], size: int) -> list[Sequence[Window]]:
    """Return the windows in batches of ``size``, without the rest; all in one batch if they are fewer."""
    size = min(size, len(windows))
    return [windows[first : first + size] for first in range(0, len(windows) - size + 1, size)]


def step_seconds(line: Mapping[str, Any], device: str) -> float:
    """Return the cost of a step in a run's log: CPU seconds of all ranks, or of a GPU the seconds between its events.

    The host's own seconds may be fewer there, since it does not wait for the device.
    """
    seconds: float = sum(line["seconds_by_part"].values()) if device == "cuda" else line["cpu_seconds"]
    return seconds


def _now(device: torch.device) -> float:
    """Return the CPU seconds of this thread, which other work on the cores does not lengthen; on a GPU, wall time."""
    return now("cuda") if device.type == "cuda" else time.thread_time()
