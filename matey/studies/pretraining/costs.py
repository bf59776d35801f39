"""What a trained model costs: counted from its tokens, and measured in its run and by forecasts."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from matey.benchmark.machine import now
from matey.checkpoints.trained import load_trained
from matey.data import open_dataset, read_windows, spread_windows
from matey.evaluate.held_out import HeldOut, hold_out
from matey.model.matey import MateyModel
from matey.planning.workload import load_workload

TIMED = 5  # batches whose median is taken, after one that warms up
BATCH = 16


@dataclass(frozen=True)
class Costs:
    """What a model costs.

    Attributes:
        parameters: number of parameters.
        tokens: mean number of tokens of a sample.
        forward_operations: operations of a forecast in matrix products.
        step_seconds: CPU seconds of a training step of one rank, or seconds on a GPU; the median over the run.
        peak_memory_bytes: the most that a rank held during training, in bytes.
        forecast_seconds: seconds of a forecast by itself, on one thread.
        batch_seconds: seconds of a forecast in a batch of 16, on one thread.
    """

    parameters: int
    tokens: float
    forward_operations: float
    step_seconds: float
    peak_memory_bytes: int
    forecast_seconds: float
    batch_seconds: float


COSTS = {
    "parameters": "parameters",
    "tokens": "tokens a sample",
    "forward_operations": "operations a forecast",
    "step_seconds": "seconds a training step",
    "forecast_seconds": "seconds a forecast",
    "batch_seconds": "seconds a forecast, 16 at a time",
    "peak_memory_bytes": "peak memory in training, bytes",
}
"""What each cost is called in tables and plots."""


def measure(folder: Path) -> Costs:
    """Read and measure the costs of a run that has ended.

    Raises:
        CheckpointError: the run has no model.
        DataError: its data cannot be read.
    """
    trained = load_trained(folder)
    run = trained.run
    assert run is not None, "a run's folder has its settings"
    workload = load_workload(run)
    steps = [line for line in trained.log if "processor_seconds" in line]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    seconds = "seconds" if device.type == "cuda" else "processor_seconds"
    sets = [open_dataset(data.path, data.description) for data in run.data.sets]
    held_out = hold_out(sets, "test", run.data.history, run.data, trained.split, are_of_the_run=True)
    model = trained.model.to(device)
    single, together = (_forecast_seconds(model, held_out, run.data.lead_max, size) for size in (1, BATCH))
    return Costs(
        parameters=workload.operations.num_parameters,
        tokens=workload.num_tokens,
        forward_operations=workload.forward_operations,
        step_seconds=statistics.median(line[seconds] for line in steps),
        peak_memory_bytes=max(line["peak_memory_bytes"] for line in steps),
        forecast_seconds=single,
        batch_seconds=together,
    )


def _forecast_seconds(model: MateyModel, data: HeldOut, lead: int, size: int) -> float:
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
