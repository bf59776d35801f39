"""What the trainings of all studies have in common: data, plan and protocol, the rows of their scores, and their speed."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from matey.benchmark.step import now
from matey.checkpoints.run_files import RECORDS
from matey.config import RunConfig, load_deepspeed_config
from matey.data import read_windows, spread_windows
from matey.data.remote import rooted
from matey.evaluate.evaluation import Protocol
from matey.evaluate.forecaster import Forecaster
from matey.evaluate.held_out import HeldOut, sound_beginnings
from matey.evaluate.records import read_records
from matey.planning.at_hand import is_at_hand
from matey.planning.estimate import estimate
from matey.planning.machine import load_machine
from matey.planning.samples import Assumed
from matey.planning.workload import load_workload
from matey.process.start import keep_freed_memory
from matey.report.tables import forecast_text, summary_records
from matey.studies.cases import Simulated
from matey.studies.engine import Row, call, script
from matey.text_table import text_table

ROLLOUT_STEPS = 10
TIMED = 5  # batches in the median, at least, after one for warm-up
BATCH = 16
MOST_TOKENS = 65536  # in a batch; a larger one takes minutes on a CPU
GIB = 2**30
NUM_SAMPLES = 8  # number of windows whose tokens are counted for a plan; few, as a study has many models
UNNAMED = tuple(f"field_{number}" for number in range(Assumed.num_fields))  # fields of data that does not exist yet


def simulate(data: Simulated, folder: Path, out: Path, work: Path) -> None:
    """Simulate a data set into a folder, unless it exists, with a log in ``out``.

    Raises:
        StudyError: the simulation failed.
    """
    flags = {"out": folder, "trajectories": data.trajectories, "resolution": data.resolution, "frames": data.frames}
    call(out, f"simulate-{data.name}", script("tools/simulate.py", flags, words=[data.system]), work)


def protocol_of(lead_max: int, max_windows: int = 200, rollout_steps: int = ROLLOUT_STEPS) -> Protocol:
    """Return the measurements of a study: lead 1 and the longest trained lead, and rollouts in steps of both."""
    leads = tuple(sorted({1, lead_max}))
    return Protocol(leads, rollout_steps, max_windows, rollout_lead=min(lead_max, rollout_steps))


def scored_by(protocol: Protocol, held_out: HeldOut, run: RunConfig) -> HeldOut:
    """Return what launch/evaluate.py scores of a selection: without NaN and infinity, if the run skips them in training."""
    if run.data.bad_values == "refuse":
        return held_out
    return sound_beginnings(held_out, held_out.num_frames + max(protocol.rollout_steps, *protocol.leads))


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
        costs: costs of the training and of forecasts.
    """
    return [
        {
            **about,
            "system": record.system,
            "forecast": forecast_text(record),
            "nrmse": record.nrmse,
            "persistence_nrmse": record.persistence_nrmse,
            "extrapolation_nrmse": record.extrapolation_nrmse,
            "ratio": record.ratio,
            "tokens_worth": record.tokens_worth,
            "num_windows": record.num_windows,
            **costs,
        }
        for record in summary_records(read_records(folder / RECORDS))
    ]


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
    size = max(1, min(BATCH, int(MOST_TOKENS / tokens)))
    # As many alone as together: of five that take 10 ms each, the median varies by a half.
    sizes = {"forecast_seconds": (1, max(TIMED, size)), "batch_seconds": (size, TIMED)}
    return {name: _forecast_seconds(model, data, lead, *of) for name, of in sizes.items()}


def _forecast_seconds(model: Forecaster, data: HeldOut, lead: int, size: int, timed: int) -> float:
    """Time ``timed`` forecasts of ``size`` windows of each system; return the mean over the systems' medians, per window."""
    of_systems = []
    for number, trajectories in enumerate(data.trajectories):
        most = size * (timed + 1)
        windows = spread_windows(data.sets[number], trajectories, data.num_frames, lead, most, set_index=number)
        together = min(size, len(windows))
        batches = [windows[first : first + together] for first in range(0, len(windows) - together + 1, together)]
        seconds = []
        for own in itertools.islice(itertools.cycle(batches), timed + 1):
            (batch,) = read_windows(data.sets, own, data.num_frames)
            start = _now(model.device)
            model.predict(batch)
            seconds.append((_now(model.device) - start) / batch.num_samples)
        of_systems.append(statistics.median(seconds[1:]))
    return statistics.fmean(of_systems)


def step_seconds(line: Mapping[str, Any], device: str) -> float:
    """Return the cost of a step in a run's log: CPU seconds of all ranks, or of a GPU the seconds between its events.

    The host's own seconds may be fewer there, since it does not wait for the device.
    """
    seconds: float = sum(line["seconds_by_part"].values()) if device == "cuda" else line["cpu_seconds"]
    return seconds


def _now(device: torch.device) -> float:
    """Return the CPU seconds of this thread, which other work on the cores does not lengthen; on a GPU, wall time."""
    return now("cuda") if device.type == "cuda" else time.thread_time()


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
    engine, lines, node_hours, too_large, assumed = load_deepspeed_config(deepspeed_config), [], 0.0, [], False
    known = load_machine(machine)
    for name in dict.fromkeys(training.name for training in trainings):
        alike = [training for training in trainings if training.name == name]
        run = alike[0].run
        run, assumptions = run.model_copy(update={"data": rooted(run.data, work)}), None
        if not is_at_hand(run):
            assumed, assumptions = True, Assumed(alike[0].grids)
            if run.model.fields is None:
                run = run.model_copy(update={"model": run.model.model_copy(update={"fields": UNNAMED})})
        workload = load_workload(run, assumptions, NUM_SAMPLES)
        there = known.on_threads(ranks, run.parallel.threads)
        planned = estimate(run, engine, there, ranks=ranks, workload=workload)
        hours = 24 * planned.days
        node_hours += len(alike) * hours * planned.nodes
        too_large += [name] * (not planned.fits)
        lines.append(
            [
                name,
                str(len(alike)),
                f"{planned.num_parameters / 1e6:.2f} M",
                f"{planned.tokens_per_sample:,.0f}",
                f"{planned.memory.total / GIB:.1f} of {planned.memory_limit / GIB:.1f}",
                f"{planned.seconds.total:.3f} s",
                f"{run.train.steps:,}",
                f"{hours:.3g}",
                f"{len(alike) * hours * planned.nodes:,.3g}",
            ]
        )
    head = ["", "trainings", "weights", "tokens", "GiB of a rank", "step", "steps", "hours each", "node hours"]
    return "\n".join(
        [
            f"On {machine}, {ranks} rank{'s' * (ranks > 1)} on {planned.nodes} "
            f"node{'s' * (planned.nodes > 1)}, {planned.samples_per_step} samples a step:",
            text_table(head, lines),
            f"{len(trainings)} trainings, {node_hours:,.3g} node hours, without their starts, validations and scores"
            + ("; tokens by grids and shares that were assumed, since the data is not there yet." if assumed else "."),
            *([f"More memory than there is: {', '.join(too_large)}."] if too_large else []),
        ]
    )
