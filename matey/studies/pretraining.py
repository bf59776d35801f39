"""Runs a study that pretrains many models: simulates data, then trains, scores and measures the models."""

from __future__ import annotations

import math
import os
import shlex
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

from matey.checkpoints.run_files import CONFIG
from matey.checkpoints.source import find_checkpoint
from matey.checkpoints.trained import load_trained
from matey.config import RunConfig, load_config
from matey.config.files import ROOT, find_shipped
from matey.data import open_sets
from matey.evaluate.held_out import hold_out
from matey.mistakes import Mistake
from matey.planning.workload import load_workload
from matey.studies.cases import PRETRAININGS, Case, Simulated, StudyError, Table
from matey.studies.engine import Row, RunnableStudy, call, digest, in_yaml, script
from matey.studies.table import Cost, Panel, errors_figure, errors_table, exponents_table, quotients_table
from matey.studies.trainings import (
    Training,
    evaluation,
    forecast_speed,
    plan_text,
    protocol_of,
    score_rows,
    simulate,
    step_seconds,
)

TOGETHER = 4  # samples scored together: 16 with 65,536 tokens each would need more memory than a laptop has
COSTS = {
    "tokens": Cost("tokens", "{:.0f}", 1, "tokens a sample"),
    "parameters": Cost("weights", "{:.2f} M", 1e-6, "millions of parameters"),
    "forward_operations": Cost("operations", "{:.3f} GFLOP", 1e-9, "GFLOP a forecast"),
    "step_seconds": Cost("step", "{:.3f} s", 1, "seconds a training step", is_compared=True),
    "training_seconds": Cost("training", "{:.0f} s", 1, "seconds of training", is_compared=True),
    "samples_per_second": Cost("samples", "{:.3g}/s", 1, "samples a second in training"),
    "forecast_seconds": Cost("forecast", "{:.1f} ms", 1e3, "ms a forecast", is_compared=True),
    "batch_seconds": Cost("of 16", "{:.1f} ms", 1e3, "ms a forecast, 16 at a time", is_compared=True),
    "peak_memory_bytes": Cost("memory", "{:.0f} MiB", 2**-20, "peak memory in training, MiB", is_compared=True),
}
"""Costs of a model: counted from its tokens, and measured in its run and in forecasts; medians over the steps of the run.

Seconds of a step are CPU seconds of all ranks together, or of a GPU; samples are those of all ranks, with several ranks a
second of wall time.
"""


@dataclass(frozen=True)
class Point:
    """One training of a study.

    Attributes:
        case: the model.
        seed: seed of the stream of samples and of the weights.
    """

    case: Case
    seed: int

    @property
    def name(self) -> str:
        """The name of the point's folder."""
        return f"{self.case.name}-seed{self.seed}"


def points_of(table: Table, seeds: int | None = None, models: str | None = None) -> list[Point]:
    """Return the trainings of some models, or of all, seed by seed, so that early results show every model.

    Raises:
        StudyError: there is no such model.
    """
    names = [case.name for case in table.cases]
    chosen = models.split(",") if models else names
    if unknown := [name for name in chosen if name not in names]:
        raise StudyError(f"--models: the study has no model {unknown[0]!r}; it has {', '.join(names)}.")
    return [Point(case, seed) for seed in range(seeds or table.seeds) for case in table.cases if case.name in chosen]


@dataclass(frozen=True)
class PretrainingStudy(RunnableStudy[Point]):
    """A table of trainings, run by ``launch/pretrain.py``.

    Attributes:
        name: name of the study, one of `PRETRAININGS`.
        scale: name of the scale of the study.
        launcher: the command before ``launch/pretrain.py``.
        deepspeed_config: path of DeepSpeed's JSON.
        settings: overrides of every point's YAML in addition to the table's.
        machine: name or file of the machine for the plan.
        ranks: number of ranks of each training in the plan, which ``launcher`` starts.
    """

    work: Path
    out: Path
    name: str
    scale: str
    points: Sequence[Point]
    launcher: str = shlex.quote(sys.executable)
    deepspeed_config: str = "ds_configs/zero1.json"
    settings: tuple[str, ...] = ()
    machine: str = "cpu"
    ranks: int = 1

    @property
    def table(self) -> Table:
        """The models and their training data."""
        return PRETRAININGS[self.name].tables[self.scale]

    @property
    def facts(self) -> Mapping[str, Any]:
        """Name, scale and overrides, and digests of YAML, data, settings and protocol; models may be added to a folder."""
        table, files = self.table, (ROOT / self.table.config, find_shipped(self.deepspeed_config))
        made_of = digest(*files, table.data, table.settings, table.rollout, table.max_windows)
        return {"study": self.name, "scale": self.scale, "set": [*self.settings], "made_of": made_of}

    def overrides(self, point: Point) -> list[str]:
        """Return the overrides of the YAML for a point; the user's come last and take precedence."""
        sets = ", ".join(f"{{path: {in_yaml(self.data_folder(data))}}}" for data in self.table.data_of(point.case))
        return [
            f"output.dir={in_yaml(self.folder(point))}",
            f"train.seed={point.seed}",
            *([f"data.sets=[{sets}]"] if sets else []),
            *self.table.settings,
            *point.case.settings,
            *self.settings,
        ]

    def data_folder(self, data: Simulated) -> Path:
        """Return the folder of a simulated data set, which all studies beside this one share."""
        return self.out.parent / "data" / f"{data.name}-{data.trajectories}x{data.frames}"

    def run_config(self, point: Point) -> RunConfig:
        """Return the run of a point.

        Raises:
            ConfigError: the settings contradict each other.
        """
        return load_config(ROOT / self.table.config, self.overrides(point))

    def plan(self) -> str:
        """Format the expected costs of the remaining trainings."""
        trainings = []
        for point in self.waiting:
            grids = tuple(data.grid for data in self.table.data_of(point.case)) or self.table.grids
            trainings.append(Training(point.case.name, self.run_config(point), grids))
        return plan_text(trainings, self.machine, self.ranks, self.deepspeed_config, self.work)

    def prepare(self, points: Sequence[Point]) -> None:
        """Simulate the training data of these points, unless it exists."""
        for data in dict.fromkeys(data for point in points for data in self.table.data_of(point.case)):
            simulate(data, self.data_folder(data), self.out, self.work)

    def run_point(self, point: Point) -> list[Row]:
        """Train, score and measure a point; an interrupted point continues from its newest checkpoint."""
        folder, table = self.folder(point), self.table
        flags = {"deepspeed_config": self.deepspeed_config, "config": ROOT / table.config, "resume": True}
        training = script("launch/pretrain.py", flags, self.overrides(point), shlex.split(self.launcher))
        call(self.out, point.name, training, self.work)
        if not (folder / CONFIG).exists():
            raise StudyError(f"{self.launcher!r} has ended without a training in {folder}; see --launcher.")
        protocol = protocol_of(load_config(folder / CONFIG).data.lead_max, table.max_windows, table.rollout)
        threads = min(self.ranks, os.cpu_count() or 1)  # the cores that the training had
        call(self.out, point.name, evaluation(folder, protocol, folder, batch=TOGETHER, threads=threads), self.work)
        about = {"series": point.case.series, "label": point.case.label, "case": point.case.name, "seed": point.seed}
        try:
            return score_rows(folder, about, costs_of(folder))
        except Mistake as error:
            raise StudyError(f"{point.name}: {error}") from None

    def text(self, rows: Sequence[Row]) -> str:
        """Format the costs and errors of each model, also over those of the references, and how they grow."""
        texts = [errors_table(rows, COSTS), quotients_table(rows, self.pairs(rows), COSTS)]
        if PRETRAININGS[self.name].grows:
            growing = {key: COSTS[key] for key in ("tokens", "forward_operations", "step_seconds", "forecast_seconds")}
            texts.append(exponents_table(rows, growing))
        return "\n\n".join(filter(None, texts))

    def pairs(self, rows: Sequence[Row]) -> list[tuple[str, str]]:
        """Return the models that the study compares with each reference.

        They are scored on the same windows: a model with a longer history has later ones, of which persistence has another
        error. A control is compared with models of its own label alone, criteria among themselves.
        """
        firsts = {row["case"]: row for row in reversed(rows)}
        pairs = []
        for reference in (name for name in (*self.table.references, *self.table.controls) if name in firsts):
            other = firsts[reference]
            for row in (firsts[case.name] for case in self.table.cases if case.name in firsts):
                alike = math.isclose(row["persistence_nrmse"], other["persistence_nrmse"], rel_tol=1e-4)
                if PRETRAININGS[self.name].of_one_scheme:
                    alike &= row["series"].split()[0] == other["series"].split()[0]
                if reference in self.table.controls:
                    alike &= row["label"] == other["label"]
                    alike &= (" by " in row["series"]) == (" by " in other["series"])
                if alike and row is not other:
                    pairs.append((f"{row['series']}, {row['label']}", f"{other['series']}, {other['label']}"))
        return pairs

    def figure(self, rows: Sequence[Row]) -> Figure:
        """Draw errors at the shortest and the longest lead against costs, or costs and errors against cells."""
        question = PRETRAININGS[self.name]
        leads = list(dict.fromkeys(row["forecast"] for row in rows if row["forecast"].startswith("lead")))
        if not question.grows:
            panels = [
                [
                    Panel(
                        [row for row in rows if row["forecast"] == lead],
                        key,
                        COSTS[key].axis,
                        f"{lead}: NRMSE / persistence",
                        x_factor=COSTS[key].factor,
                    )
                    for key in question.costs
                ]
                for lead in leads
            ]
            return errors_figure(panels)
        own, x_title = [row for row in rows if row["forecast"] == leads[-1]], "cells along an axis"
        grown = [Panel(own, "label", x_title, COSTS[key].axis, key, 1.0, COSTS[key].factor) for key in question.costs]
        return errors_figure([[*grown, Panel(own, "label", x_title, f"{leads[-1]}: NRMSE / persistence")]])


def costs_of(folder: Path) -> dict[str, float]:
    """Read and measure the `COSTS` of a finished run in a folder.

    Raises:
        CheckpointError: the run has no model.
        DataError: the data cannot be read.
    """
    trained = load_trained(folder)
    run = trained.run
    assert run is not None, "a run's folder has its settings"
    workload, ranks = load_workload(run), find_checkpoint(folder)[0].num_ranks
    steps = [line for line in trained.log if "cpu_seconds" in line]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    held_out = hold_out(open_sets(run.data), "test", run.data.history, run.data, trained.split, are_of_the_run=True)
    seconds = statistics.median(step_seconds(line, device.type) for line in steps)
    by_the_clock = statistics.median(line["seconds"] for line in steps)
    size = run.parallel.sequence_parallel_size
    samples = math.nan if size == "auto" else run.train.micro_batch * run.train.accumulation * (ranks // size)
    return {
        **forecast_speed(trained.model.to(device), held_out, run.data.lead_max, workload.num_tokens),
        "parameters": workload.operations.num_parameters,
        "tokens": workload.num_tokens,
        "forward_operations": workload.forward_operations,
        "step_seconds": seconds,
        "training_seconds": run.train.steps * seconds,
        "samples_per_second": samples / (by_the_clock if ranks > 1 else seconds),
        "peak_memory_bytes": max(line["peak_memory_bytes"] for line in steps),
    }
