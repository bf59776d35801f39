"""What a trained model costs: counted from its tokens, and measured in its run and by forecasts."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from pathlib import Path

import torch

from matey.checkpoints.trained import load_trained
from matey.data import open_sets
from matey.evaluate.held_out import hold_out
from matey.planning.workload import load_workload
from matey.studies.speed import Speed, forecast_speed


@dataclass(frozen=True)
class Costs(Speed):
    """Costs of a model.

    Attributes:
        parameters: number of parameters.
        tokens: mean number of tokens of a sample.
        forward_operations: operations of a forecast in matrix products.
        step_seconds: CPU seconds of a training step of one rank, or seconds on a GPU; the median over the run.
        samples_per_second: number of samples that a rank takes in in a second of training.
        peak_memory_bytes: the most that a rank held during training, in bytes.
    """

    parameters: int
    tokens: float
    forward_operations: float
    step_seconds: float
    samples_per_second: float
    peak_memory_bytes: int


COSTS = {
    "parameters": "parameters",
    "tokens": "tokens a sample",
    "forward_operations": "operations a forecast",
    "step_seconds": "seconds a training step",
    "samples_per_second": "samples a second in training",
    "forecast_seconds": "seconds a forecast",
    "batch_seconds": "seconds a forecast, 16 at a time",
    "peak_memory_bytes": "peak memory in training, bytes",
}
"""Names of the costs in tables and plots."""


def measure(folder: Path) -> Costs:
    """Read and measure the costs of a run that has ended.

    Raises:
        CheckpointError: the run has no model.
        DataError: the data cannot be read.
    """
    trained = load_trained(folder)
    run = trained.run
    assert run is not None, "a run's folder has its settings"
    workload = load_workload(run)
    steps = [line for line in trained.log if "cpu_seconds" in line]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    seconds = "seconds" if device.type == "cuda" else "cpu_seconds"
    held_out = hold_out(open_sets(run.data), "test", run.data.history, run.data, trained.split, are_of_the_run=True)
    speed = forecast_speed(trained.model.to(device), held_out, run.data.lead_max)
    step_seconds = statistics.median(line[seconds] for line in steps)
    return Costs(
        **vars(speed),
        parameters=workload.operations.num_parameters,
        tokens=workload.num_tokens,
        forward_operations=workload.forward_operations,
        step_seconds=step_seconds,
        samples_per_second=run.train.micro_batch * run.train.accumulation / step_seconds,
        peak_memory_bytes=max(line["peak_memory_bytes"] for line in steps),
    )
