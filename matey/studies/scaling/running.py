"""Runs the points of a study: here, one after another and within a time, or as Slurm jobs that wait for each other."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from matey.checkpoints.run_files import METRICS
from matey.config import ConfigError
from matey.studies.scaling.lengths import Lengths
from matey.studies.scaling.measured import last_step
from matey.studies.scaling.study import Point, Study
from matey.studies.slurm import submit_once

LENGTHS_FILE = "lengths.json"
GRACE = 60.0  # seconds in which a run that is asked to leave saves a checkpoint


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
    failures = []
    for point in study.points:
        if is_finished(study, point):
            say(f"{point.name}: finished before")
            continue
        say(f"{point.name}: {point}")
        try:
            _run_job(study.folder_of(point), root, limit)
            if study.lengths is not None:
                lengths = _with_limit(study.lengths, limit)
                if lengths != study.lengths:
                    study = replace(study, lengths=lengths)
                    study.write()
                samples = lengths.measure(point.ranks, limit)
                (study.folder_of(point) / LENGTHS_FILE).write_text(
                    json.dumps(samples, indent=1) + "\n", encoding="utf-8"
                )
        except RuntimeError as error:
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


def _run_job(folder: Path, root: Path, limit: float) -> None:
    """Run a point's job with its output in log.txt.

    Raises:
        RuntimeError: it failed, or did not end in time.
    """
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with (folder / "log.txt").open("ab") as log:
        job = subprocess.Popen(
            ["bash", str(folder / "job.sh")],
            cwd=root,
            env={**os.environ, "PATH": path},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            code = job.wait(limit)
        except subprocess.TimeoutExpired:
            _stop(job)
            raise RuntimeError(
                f"not finished in {limit / 60:g} minutes; its steps so far count, and `run` with a larger --limit continues."
            ) from None
        except KeyboardInterrupt:
            _stop(job)
            raise
    if code:
        raise RuntimeError(f"failed with exit code {code}: {_last_error(folder / 'log.txt')}")


def _stop(job: subprocess.Popen[bytes]) -> None:
    """Ask a run to leave. Its launcher passes SIGTERM on to the ranks; killed at once it would leave them behind."""
    job.terminate()
    try:
        job.wait(GRACE)
    except subprocess.TimeoutExpired:
        job.kill()
        job.wait()


def _with_limit(lengths: Lengths, seconds: float) -> Lengths:
    """Return how the longest sequence is found, with a limit of memory: measured if there is none yet."""
    return lengths.measure_limit(seconds) if lengths.limit is None else lengths


def _last_error(log: Path) -> str:
    """Return the last line that names an error, else where to look."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    errors = [line.strip() for line in lines if line.startswith("error: ") or "Error: " in line]
    return errors[-1].removeprefix("error: ") if errors else f"see {log}"
