"""Runs the points of a study: here, one after another and within a time, or as Slurm jobs that wait for each other."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from matey.checkpoints.run_files import METRICS
from matey.config import ConfigError
from matey.studies.folder import StudyError, call
from matey.studies.scaling.measured import last_step
from matey.studies.scaling.study import Point, Study
from matey.studies.slurm import submit_once

LENGTHS_FILE = "lengths.json"


def is_finished(study: Study, point: Point) -> bool:
    """Whether a point has nothing left to measure."""
    folder = study.folder_of(point)
    has_lengths = study.lengths is None or point.nodes is not None or (folder / LENGTHS_FILE).exists()
    return last_step(folder / "run" / METRICS) >= study.steps and has_lengths


def run_here(study: Study, root: Path, limit: float, say: Callable[[str], None]) -> list[str]:
    """Run every point that is not finished, each for so many seconds at most; return what went wrong, a line a point.

    Args:
        study: a study whose points have jobs for this machine.
        root: root folder of the repository.
        limit: time limit in seconds; a run that takes longer is asked to save and stop, and continues from there next
            time.
        say: function that prints a line.

    Raises:
        ConfigError: the study is one of nodes.
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
            job = ["bash", str(study.folder_of(point) / "job.sh")]
            call(study.folder, point.name, job, root, {"PATH": path}, limit)
            if study.lengths is not None:
                lengths = study.lengths if study.lengths.limit is not None else study.lengths.measure_limit(limit)
                study = replace(study, lengths=lengths)
                study.write()
                samples = json.dumps(lengths.measure(point.ranks, limit), indent=1)
                (study.folder_of(point) / LENGTHS_FILE).write_text(f"{samples}\n", encoding="utf-8")
        except StudyError as error:
            failures.append(str(error))
        except RuntimeError as error:  # of a length that was measured after it
            failures.append(f"{point.name}: {error}")
    return failures


def submit(study: Study, root: Path, options: list[str], say: Callable[[str], None]) -> None:
    """Hand the jobs of all points that are neither finished nor submitted to Slurm; each waits for the end of the one before.

    Args:
        study: a study whose points have job scripts.
        root: root folder of the repository, from where the jobs are submitted.
        options: further options of ``sbatch``, such as ``-A PROJECT``.
        say: function that prints a line.

    Raises:
        ConfigError: the study is one for this machine, or Slurm does not take a job.
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
        arguments = [*waits, *options, str(folder / "job.sbatch")]
        before = submit_once(point.name, folder / "job_id", arguments, root, say)
