"""The costs of a trained model: counted from its tokens, and measured in its run and in forecasts."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from matey.checkpoints.source import find_checkpoint
from matey.checkpoints.trained import load_trained
from matey.config import RunConfig
from matey.data import open_sets
from matey.evaluate.held_out import hold_out
from matey.planning.workload import load_workload
from matey.studies.speed import forecast_speed, step_seconds


@dataclass(frozen=True)
class Costs:
    """Costs of a model.

    Attributes:
        forecast_seconds: seconds of a single forecast, see `matey.studies.speed.forecast_speed`.
        batch_seconds: seconds per forecast in a batch, see `matey.studies.speed.forecast_speed`.
        parameters: number of parameters.
        tokens: mean number of tokens of a sample.
        forward_operations: operations of a forecast in matrix products.
        step_seconds: CPU seconds of a training step on all ranks together, or seconds on a GPU; median over the run.
        samples_per_second: number of training samples of all ranks per second of ``step_seconds``; with several ranks, per
            second of wall time.
        peak_memory_bytes: peak memory of a rank during training, in bytes.
        data_seconds: wall time per step in which the first rank waits for data or prepares it, in seconds; this and the
            following parts are medians over the run.
        forward_seconds: seconds of the forward pass and the loss.
        backward_seconds: seconds of the backward pass.
        optimizer_seconds: seconds of the optimizer.
        message_bytes: bytes that the first rank puts into messages in a step, if counted (`train.count_traffic`).
        message_calls: number of the first rank's messages in a step.
        num_ranks: number of ranks of the training; None if an earlier version measured it.
    """

    forecast_seconds: float
    batch_seconds: float
    parameters: int
    tokens: float
    forward_operations: float
    step_seconds: float
    samples_per_second: float
    peak_memory_bytes: int
    data_seconds: float
    forward_seconds: float
    backward_seconds: float
    optimizer_seconds: float
    message_bytes: float
    message_calls: float
    num_ranks: int | None = None


WARM_UP = 10  # steps that take up to a tenth longer, since memory is still being taken from the system
PARTS = ("data", "forward", "backward", "optimizer")
"""Parts of a training step in a run's log."""

COSTS = {
    "parameters": ("millions of parameters", 1e-6),
    "tokens": ("tokens a sample", 1.0),
    "forward_operations": ("GFLOP a forecast", 1e-9),
    "step_seconds": ("seconds a training step", 1.0),
    "training_seconds": ("seconds of training", 1.0),
    "samples_per_second": ("samples a second in training", 1.0),
    "forecast_seconds": ("ms a forecast", 1e3),
    "batch_seconds": ("ms a forecast, 16 at a time", 1e3),
    "peak_memory_bytes": ("peak memory in training, MiB", 2**-20),
}
"""Names of the costs in plots, and the factors to their units there."""


def measure(folder: Path, timed: Path | None = None) -> Costs:
    """Read and measure the costs of a finished run.

    Args:
        folder: folder of the run.
        timed: folder of a shorter run of the same model, from whose steps times are taken, without the first `WARM_UP`; by
            default the run's own.

    Raises:
        CheckpointError: a run has no model.
        DataError: the data cannot be read.
    """
    trained = load_trained(folder)
    run = trained.run
    assert run is not None, "a run's folder has its settings"
    workload = load_workload(run)
    all_steps = [line for line in trained.log if "cpu_seconds" in line]
    steps = [line for line in load_trained(timed).log if "cpu_seconds" in line][WARM_UP:] if timed else all_steps
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    ranks = find_checkpoint(folder)[0].num_ranks
    held_out = hold_out(open_sets(run.data), "test", run.data.history, run.data, trained.split, are_of_the_run=True)
    speed = forecast_speed(trained.model.to(device), held_out, run.data.lead_max, workload.num_tokens)
    seconds = statistics.median(step_seconds(line, device.type) for line in steps)
    by_the_clock = statistics.median(line["seconds"] for line in steps)
    return Costs(
        **speed,
        parameters=workload.operations.num_parameters,
        tokens=workload.num_tokens,
        forward_operations=workload.forward_operations,
        step_seconds=seconds,
        samples_per_second=samples_per_second(run, ranks, by_the_clock if ranks > 1 else seconds),
        peak_memory_bytes=max(line["peak_memory_bytes"] for line in all_steps),
        **{f"{part}_seconds": statistics.median(line["seconds_by_part"][part] for line in steps) for part in PARTS},
        **_messages(all_steps),
        num_ranks=ranks,
    )


def samples_per_second(run: RunConfig, ranks: int, seconds: float) -> float:
    """Return the number of samples per second of all ranks together; NaN if the sizes of groups depend on memory.

    Args:
        run: configuration of the run.
        ranks: number of ranks.
        seconds: seconds of a step.
    """
    size = run.parallel.sequence_parallel_size
    return math.nan if size == "auto" else run.train.micro_batch * run.train.accumulation * (ranks // size) / seconds


def _messages(steps: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return bytes and calls of the messages in the last step that counted them."""
    of_kinds = next((line["traffic"].values() for line in reversed(steps) if "traffic" in line), ())
    return {f"message_{what}": float(sum(kind[what] for kind in of_kinds)) for what in ("bytes", "calls")}
