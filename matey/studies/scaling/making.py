"""Writes a study: for each point its run, its DeepSpeed configuration, its job, and its expected cost."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from matey.checkpoints.run_files import DS_CONFIG
from matey.config import ConfigError, RunConfig, dump_config
from matey.planning.estimate import Estimate
from matey.planning.machine import Machine
from matey.planning.workload import load_workload
from matey.studies.folder import STUDY
from matey.studies.scaling.jobs import local_job, slurm_job, tasks_per_node
from matey.studies.scaling.lengths import Lengths
from matey.studies.scaling.model import cost_of
from matey.studies.scaling.study import COUNTED_STEPS, JOB, RUN, SLURM_JOB, Mode, Point, Study, runs_of, timed


def make_study(
    folder: Path,
    mode: Mode,
    run: RunConfig,
    deepspeed_config: dict[str, Any],
    points: Sequence[Point],
    machine_name: str,
    machine: Machine,
    *,
    warm_up: int,
    timed_steps: int,
    global_batch: int | None = None,
    lengths: Lengths | None = None,
    script: Path | None = None,
    minutes: int = 30,
) -> tuple[Study, list[RunConfig], list[Estimate]]:
    """Write a study into a folder; return the study, and for each point the run and its expected cost.

    Args:
        folder: a folder that holds no study yet.
        mode: the quantity that stays the same from point to point.
        run: the run at the smallest point.
        deepspeed_config: the configuration of the engine, the same at all points.
        points: the points, ordered by size.
        machine_name: name of the machine, or the path of its file.
        machine: the machine for which costs are estimated.
        warm_up: number of first steps that are not timed.
        timed_steps: number of timed steps after the warm-up.
        global_batch: number of samples of a step, for the mode ``strong``; by default that of the smallest point.
        lengths: the search for the longest sequence, for the mode ``sequence``.
        script: the job script on which the points' jobs are based; None for points on this machine.
        minutes: time limit of a job in minutes.

    Raises:
        ConfigError: the folder holds a study, the run does not fit a point, or the script is not one for this machine.
    """
    if (folder / STUDY).exists():
        raise ConfigError(f"{folder} holds a study already; choose another --out, or remove it.")
    if timed_steps < 1 or warm_up < 0:
        raise ConfigError(f"A study times at least one step after its warm-up, got {timed_steps} after {warm_up}.")
    if script is not None and (tasks := tasks_per_node(script)) not in (None, machine.devices_per_node):
        raise ConfigError(
            f"{script} starts {tasks} tasks on a node and {machine.name} has {machine.devices_per_node} GPUs; change the "
            "script, or choose the machine that it is for."
        )
    study = Study(folder, mode, machine_name, warm_up, warm_up + timed_steps + COUNTED_STEPS, tuple(points), lengths)
    # The same number at all points, as ranks would otherwise be faster at points with fewer ranks.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = max(1, cores // points[-1].ranks) if script is None else None
    runs = runs_of(mode, run, points, global_batch)
    runs = [
        timed(own, study.folder_of(point), warm_up, timed_steps, threads)
        for own, point in zip(runs, points, strict=True)
    ]
    workload = load_workload(run)
    costs = []
    for point, own in zip(points, runs, strict=True):
        costs.append(cost_of(own, deepspeed_config, machine, point, workload))
        job = local_job(study, point) if script is None else slurm_job(study, point, script, minutes)
        files = {
            RUN: dump_config(own),
            DS_CONFIG: json.dumps(deepspeed_config, indent=2) + "\n",
            JOB if script is None else SLURM_JOB: job,
            "expected.json": json.dumps(expected(costs[-1], study.steps), indent=2) + "\n",
        }
        study.folder_of(point).mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (study.folder_of(point) / name).write_text(text, encoding="utf-8")
    (folder / "logs").mkdir()  # Slurm does not make the folder
    study.write()
    return study, runs, costs


def expected(cost: Estimate, steps: int) -> dict[str, Any]:
    """Return the expected costs of a point in values that JSON can hold."""
    return {
        "ranks": cost.ranks,
        "nodes": cost.nodes,
        "samples_per_step": cost.samples_per_step,
        "tokens_per_sample": cost.tokens_per_sample,
        "seconds_per_step": cost.seconds.total,
        "seconds_by_part": asdict(cost.seconds),
        "bytes_by_kind": cost.by_kind("num_bytes"),
        "memory_bytes": cost.memory.total,
        "memory_by_part": asdict(cost.memory),
        "fits": cost.fits,
        "node_hours": cost.nodes * steps * cost.seconds.total / 3600,
    }
