"""What the trainings of all studies have in common: the protocol of their scores, the rows of these, their costs and a plan."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from matey.checkpoints.run_files import CONFIG, METRICS, RECORDS
from matey.checkpoints.source import find_checkpoint
from matey.checkpoints.trained import read_log
from matey.config import RunConfig, load_config, load_deepspeed_config
from matey.data.remote import rooted
from matey.evaluate.evaluation import Protocol
from matey.evaluate.records import read_records
from matey.planning import is_at_hand
from matey.planning.estimate import estimate
from matey.planning.machine import load_machine
from matey.planning.workload import Assumed, load_workload
from matey.report.evaluation import forecast_text, summary_records
from matey.studies.engine import script
from matey.studies.table import Column, Row
from matey.text_table import text_table

NUM_SAMPLES = 8  # number of windows whose tokens are counted for a plan; few, as a study has many models
UNNAMED = tuple(f"field_{number}" for number in range(Assumed.num_fields))  # fields of data that does not exist yet
COLUMNS = {
    "tokens": Column("tokens", "{:.0f}"),
    "parameters": Column("weights, millions", "{:.3f}", 1e-6),
    "operations": Column("GFLOP a forecast", "{:.3f}", 1e-9),
    "step_seconds": Column("s a step", "{:.3f}"),
    "seconds": Column("s of training", "{:.1f}"),
    "memory": Column("peak memory, MiB", "{:.0f}", 2**-20),
}
"""Costs of a model, counted from its tokens and measured in its run. Seconds are CPU seconds of all ranks, or of a GPU."""


def device() -> str:
    """Return the device on which trainings of a study run, which decides the unit of their cost."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def protocol_of(lead_max: int, max_windows: int = 200, rollout_steps: int = 10) -> Protocol:
    """Return the measurements of a study: lead 1 and the longest trained lead, and rollouts in steps of both."""
    leads = tuple(sorted({1, lead_max}))
    return Protocol(leads, rollout_steps, max_windows, rollout_lead=min(lead_max, rollout_steps))


def evaluation(folder: Path, protocol: Protocol, out: Path, **more: object) -> list[str]:
    """Return the command that measures the same of a run, and writes it to ``out``."""
    leads = ",".join(map(str, protocol.leads))
    flags = {"leads": leads, "rollout": protocol.rollout_steps, "rollout-lead": protocol.rollout_lead}
    flags |= {"max-windows": protocol.max_windows, "batch": protocol.batch_size}
    return script("launch/evaluate.py", {"checkpoint": folder, "out": out, **flags, **more})


def score_rows(folder: Path, about: Mapping[str, Any], costs: Mapping[str, Any]) -> list[Row]:
    """Return a row for each system and forecast over all fields, from the scores in a folder.

    Args:
        folder: folder with ``metrics.json``.
        about: ``series`` (line of the plot), ``label`` (point on it), ``seed``, and what else tells the training.
        costs: costs of the training.
    """
    return [
        {
            **about,
            "system": record.system,
            "forecast": forecast_text(record),
            "vrmse": record.vrmse,
            "persistence_vrmse": record.persistence_vrmse,
            "extrapolation_vrmse": record.extrapolation_vrmse,
            "ratio": record.ratio,
            "tokens_worth": record.tokens_worth,
            "num_windows": record.num_windows,
            **costs,
        }
        for record in summary_records(read_records(folder / RECORDS))
    ]


def steps_of(folder: Path) -> list[dict[str, Any]]:
    """Return the lines of training steps from a run's log; none before the first."""
    return [line for line in read_log(folder / METRICS) if "cpu_seconds" in line]


def step_seconds(line: Mapping[str, Any], device: str) -> float:
    """Return the cost of a step in a run's log: CPU seconds of all ranks, or of a GPU the seconds between its events.

    The host's own seconds may be fewer there, since it does not wait for the device.
    """
    seconds: float = sum(line["seconds_by_part"].values()) if device == "cuda" else line["cpu_seconds"]
    return seconds


def seconds_of(folder: Path) -> float:
    """Return the cost of a finished run in a folder: that of its logged steps on average, times the number of all.

    Raises:
        CheckpointError: the run has no checkpoint.
    """
    steps, ranks = steps_of(folder), find_checkpoint(folder)[0].num_ranks if device() == "cuda" else 1
    return ranks * steps[-1]["step"] * statistics.fmean(step_seconds(line, device()) for line in steps)


def costs_of(folder: Path) -> dict[str, float]:
    """Return the `COLUMNS` of a finished run in a folder.

    Raises:
        CheckpointError: the run has no checkpoint.
        DataError: the data cannot be read.
    """
    workload, steps = load_workload(load_config(folder / CONFIG)), steps_of(folder)
    return {
        "tokens": workload.num_tokens,
        "parameters": workload.operations.num_parameters,
        "operations": workload.forward_operations,
        "step_seconds": statistics.median(step_seconds(line, device()) for line in steps),
        "seconds": seconds_of(folder),
        "memory": max(line["peak_memory_bytes"] for line in steps),
    }


@dataclass(frozen=True)
class Training:
    """A training that has not ended.

    Attributes:
        name: the model's name, the same for all its seeds.
        run: configuration of the run.
        grids: cells ``z, y, x`` of each of its data sets, used for sets that do not exist yet.
    """

    name: str
    run: RunConfig
    grids: tuple[tuple[int, int, int], ...]


def plan_text(trainings: Sequence[Training], machine: str, ranks: int, deepspeed_config: str, work: Path) -> str:
    """Format the costs of trainings on a machine, a line for each model, and their sum.

    Args:
        trainings: the trainings.
        machine: name or file of the machine, see `matey.planning.machine`.
        ranks: number of ranks of each training.
        deepspeed_config: path of DeepSpeed's JSON.
        work: folder to which relative paths of data refer.

    Raises:
        ConfigError: there is no such machine, or it has fewer nodes than the ranks need.
        DataError: data cannot be read.
    """
    if not trainings:
        return "Nothing is left to train."
    engine, lines, node_hours = load_deepspeed_config(deepspeed_config), [], 0.0
    for name in dict.fromkeys(training.name for training in trainings):
        alike = [training for training in trainings if training.name == name]
        run, assumptions = alike[0].run, None
        run = run.model_copy(update={"data": rooted(run.data, work)})
        if not is_at_hand(run):
            assumptions = Assumed(alike[0].grids)
            run = run.model_copy(update={"model": run.model.model_copy(update={"fields": run.model.fields or UNNAMED})})
        workload = load_workload(run, assumptions, NUM_SAMPLES)
        there = load_machine(machine).on_threads(ranks, run.parallel.threads)
        planned = estimate(run, engine, there, ranks=ranks, workload=workload)
        hours = 24 * planned.days * planned.nodes
        node_hours += len(alike) * hours
        numbers = f"{workload.operations.num_parameters / 1e6:.2f} M", f"{planned.tokens_per_sample:,.0f}"
        memory = f"{planned.memory.total / 2**30:.1f} GiB{'' if planned.fits else ', more than there is'}"
        lines.append([name, str(len(alike)), *numbers, memory, f"{planned.seconds.total:.3f} s", f"{hours:.3g}"])
    nodes = f"{ranks} rank{'s' * (ranks > 1)} on {planned.nodes} node{'s' * (planned.nodes > 1)}"
    head = ["", "trainings", "weights", "tokens", "memory of a rank", "step", "node hours each"]
    return (
        f"On {machine}, {nodes}, {planned.samples_per_step} samples a step:\n{text_table(head, lines)}\n"
        f"{len(trainings)} trainings, {node_hours:,.3g} node hours, without validations and scores. Tokens of data that is "
        "not there yet are assumed."
    )
