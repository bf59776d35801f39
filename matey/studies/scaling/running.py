"""Runs the points of a study: locally, one after another with a time limit, or as Slurm jobs that wait for each other."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from matey.checkpoints.durable import replace_text
from matey.checkpoints.run_files import METRICS
from matey.config import ConfigError
from matey.studies.folder import StudyError, call
from matey.studies.scaling.measured import last_step
from matey.studies.scaling.study import JOB, SLURM_JOB, Point, Study
from matey.studies.slurm import submit_once

LENGTHS_FILE = "lengths.json"


def is_finished(study: Study, point: Point) -> bool:
    """Whether a point has nothing left to measure."""
    folder = study.folder_of(point)
    has_lengths = study.lengths is None or point.nodes is not None or (folder / LENGTHS_FILE).exists()
    return last_step(folder / "run" / METRICS) >= study.steps and has_lengths


def run_here(study: Study, root: Path, limit: float, say: Callable[[str], None]) -> list[str]:
    """Run every unfinished point, each with a time limit; return the errors, one line per failed point.

    Args:
        study: a study whose points have jobs for this machine.
        root: root folder of the repository.
        limit: time limit in seconds; a run that takes longer is asked to save and stop, and the next call continues
            it.
        say: function that prints a line.

    Raises:
        ConfigError: the study's points are on nodes.
    """
    if study.points[0].nodes is not None:
        raise ConfigError(
            f"{study.folder} is a study of nodes, whose jobs are for Slurm: use --submit, or plan with --ranks."
        )
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    failures = []
    for point in study.points:
        if is_finished(study, point):
            say(f"{point.name}: finished before")
            continue
        say(f"{point.name}: {point}")
        try:
            job = ["bash", str(study.folder_of(point) / JOB)]
            call(study.folder, point.name, job, root, {"PATH": path}, limit)
            if study.lengths is not None:
                lengths = study.lengths if study.lengths.is_measured else study.lengths.measured(limit)
                study = replace(study, lengths=lengths)
                study.write()
                samples = json.dumps(lengths.measure(point.ranks, limit), indent=1)
                replace_text(study.folder_of(point) / LENGTHS_FILE, f"{samples}\n")
        except StudyError as error:
            failures.append(str(error))
        except RuntimeError as error:  # raised by the measurement of a length after the run
            failures.append(f"{point.name}: {error}")
    return failures


def submit(study: Study, root: Path, options: list[str], say: Callable[[str], None]) -> None:
    """Submit the jobs of all points that are neither finished nor submitted to Slurm; each job waits for the previous one.

    Args:
        study: a study whose points have job scripts.
        root: root folder of the repository, in which the jobs are submitted.
        options: further options of ``sbatch``, such as ``-A PROJECT``.
        say: function that prints a line.

    Raises:
        ConfigError: the study's points are for this machine, or Slurm refuses a job.
    """
    if study.points[0].nodes is None:
        raise ConfigError(f"{study.folder} is a study for one machine: use --local, or plan with --nodes.")
    before: str | None = None
    for point in study.points:
        if is_finished(study, point):
            say(f"{point.name}: finished before")
            continue
        waits: list[str] = [f"--dependency=afterany:{before}"] if before else []
        folder = study.folder_of(point)
        arguments = [*waits, *options, str(folder / SLURM_JOB)]
        before = submit_once(point.name, folder / "job_id", arguments, root, say)
