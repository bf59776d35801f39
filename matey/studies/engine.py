"""Runs the points of any study, locally or as Slurm jobs; continues interrupted studies; writes table and plot."""

from __future__ import annotations

import json
import os
import shlex
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from functools import partial
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from matplotlib.figure import Figure
from tqdm import tqdm

from matey.checkpoints.durable import replace_text
from matey.mistakes import Mistake, one_line
from matey.report.png import write_png
from matey.studies.folder import CONTINUES, TEXT, Row, StudyError, call, check, claim, stop_all, write_table
from matey.studies.made import made_text, note_made
from matey.studies.slurm import submit_once
from matey.train.folder import FileLock, LockedError


class Point(Protocol):
    """One training of a study."""

    @property
    def name(self) -> str:
        """The name of the point's folder and log."""


PointT = TypeVar("PointT", bound=Point)
COLOURS = 48  # colours of a figure: the lines have seven, their edges and the grid the rest
MOST_BYTES = 100_000  # of a figure, so that pages of the repository can have it as it is


class RunnableStudy(ABC, Generic[PointT]):
    """The points of a study, how a point is run, and how finished points are shown.

    Attributes:
        out: folder of the study.
        work: folder in which commands are started.
        points: the points, in the order in which they run.
        last_written: name of the last file written to a point's folder; a point with this file is done.
        growing: names of the facts to which later calls may add entries, see `matey.studies.folder.claim`.
    """

    out: Path
    work: Path
    points: Sequence[PointT]
    last_written: str
    growing: Sequence[str] = ()

    @property
    @abstractmethod
    def facts(self) -> Mapping[str, Any]:
        """Facts that identify the study, with its name under ``study``; a folder holds one study only."""

    @property
    def shown(self) -> Sequence[PointT]:
        """The points whose results are shown once they are done: all in the folder, whichever of them a call names."""
        return self.points

    @abstractmethod
    def plan(self) -> str:
        """Return the expected costs of the remaining points, as text.

        Raises:
            ConfigError: the study cannot be planned for the named machine.
            StudyError: the study's model or data cannot be read, or they do not fit each other.
        """

    def prepare(self, points: Sequence[PointT]) -> None:
        """Make the inputs of points that are to run, such as data, unless they exist.

        Raises:
            StudyError: it failed.
        """

    @abstractmethod
    def run_point(self, point: PointT) -> None:
        """Train and score a point in its folder; an interrupted point continues.

        Raises:
            StudyError: it failed.
        """

    @abstractmethod
    def rows_of(self, point: PointT) -> list[Row]:
        """Return the scores and costs of a finished point, in rows with the same keys."""

    @abstractmethod
    def text(self, rows: Sequence[Row]) -> str:
        """Format rows as a table for readers: means and deviations over the seeds."""

    @abstractmethod
    def figure(self, rows: Sequence[Row]) -> Figure:
        """Draw the rows as a figure."""

    def folder(self, point: PointT) -> Path:
        """Return the folder of a point."""
        return self.out / "points" / point.name

    def is_done(self, point: PointT) -> bool:
        """Return whether a point is trained and scored."""
        return (self.folder(point) / self.last_written).exists()

    def finish(self, point: PointT, costs: Mapping[str, Any]) -> None:
        """Write the last file of a point, its costs as JSON; other processes find either the whole file or none."""
        replace_text(self.folder(point) / self.last_written, json.dumps(costs) + "\n")


def run_study(study: RunnableStudy[PointT], command: Sequence[str], jobs: int) -> str:
    """Run the remaining points, `jobs` at a time; write table and plot after each; return the text of the results.

    Args:
        study: the study.
        command: the command that runs the study; with ``--point NAME`` it runs one point alone.
        jobs: number of points run at the same time, each on its share of the cores.

    Raises:
        StudyError: points failed (raised after all others have run), or the folder holds another study.
    """
    claim(study.out, study.facts, study.growing)
    waiting = [point for point in study.points if not study.is_done(point)]
    done = len(study.points) - len(waiting)
    if waiting:
        study.prepare(waiting)
    _write_results(study)
    with tqdm(total=len(study.points), initial=done, desc=study.facts["study"], unit="run", disable=None) as bar:
        for _ in _ended(study, command, jobs):
            _write_results(study)
            bar.update()
    return (study.out / TEXT).read_text(encoding="utf-8").rstrip()


def run_one(study: RunnableStudy[PointT], name: str) -> None:
    """Run the point with a name, unless it is done.

    Raises:
        StudyError: the point failed, or no point has this name.
    """
    found = next((point for point in study.points if point.name == name), None)
    if found is None:
        raise StudyError(f"--point: the study has no point {name!r}; --list names them.")
    claim(study.out, study.facts, study.growing)
    if not study.is_done(found):
        study.prepare([found])  # some of them may have been lost since the study was submitted
        _run(study, found)


def draw(study: RunnableStudy[PointT]) -> str:
    """Write table and plot of the points that are done, and run none; return the text of the results.

    Raises:
        StudyError: no point is done, or the folder holds another study.
    """
    check(study.out, study.facts, study.growing)
    if not _write_results(study):
        raise StudyError(f"{study.out} has no finished training yet; start them without --draw.")
    return (study.out / TEXT).read_text(encoding="utf-8").rstrip()


def submit(
    study: RunnableStudy[PointT], command: Sequence[str], options: Sequence[str], say: Callable[[str], None]
) -> None:
    """Submit the points that are neither done nor submitted to Slurm, each as its own job.

    Args:
        study: the study; the inputs shared by its points are made here first.
        command: the command that runs the study, see `run_study`.
        options: further options of ``sbatch``, such as ``-A PROJECT``.
        say: function that prints a line.

    Raises:
        ConfigError: Slurm does not take a job.
        StudyError: the folder holds another study.
    """
    claim(study.out, study.facts, study.growing)
    if waiting := [point for point in study.points if not study.is_done(point)]:
        study.prepare(waiting)
    logs, numbers = study.out / "logs", study.out / "jobs"
    for folder in (logs, numbers):
        folder.mkdir(exist_ok=True)
    for point in study.points:
        if study.is_done(point):
            say(f"{point.name}: done")
            continue
        script = f"exec {shlex.join([*command, '--point', point.name])}"
        own = [f"--job-name=matey-{study.facts['study']}-{point.name}", f"--output={logs / point.name}.txt"]
        arguments = [*own, "--open-mode=append", *options, "--wrap", script]
        submit_once(point.name, numbers / point.name, arguments, study.work, say)
    _write_results(study)
    say("Table and plot of what is done are written by the same command with --draw instead of --submit.")


def _ended(study: RunnableStudy[PointT], command: Sequence[str], jobs: int) -> Iterator[PointT]:
    """Run the remaining points and yield each when it is done; a failed point does not stop the others.

    Raises:
        StudyError: points failed; raised after the others have ended, with the names of all failed points.
    """
    waiting = [point for point in study.points if not study.is_done(point)]
    failures: list[tuple[PointT, str]] = []
    for point, wait in _started(study, waiting, command, jobs):
        try:
            wait()
        except Mistake as error:
            failures.append((point, str(error)))
        else:
            yield point
    done = [point for point, _ in failures if study.is_done(point)]  # meanwhile, by another call on the folder
    yield from done
    left = [error for point, error in failures if point not in done]
    if left:
        head = f"{len(left)} of {len(waiting)} trainings are not done: " if len(waiting) > 1 else ""
        raise StudyError(head + " ".join(left))


def _started(
    study: RunnableStudy[PointT], waiting: Sequence[PointT], command: Sequence[str], jobs: int
) -> Iterator[tuple[PointT, Callable[[], object]]]:
    """Yield points, in order or as they end, with a function that returns when the point is done, or raises its error."""
    if jobs == 1:
        for point in waiting:
            yield point, partial(_run, study, point)
        return
    # Points that run at the same time share out the cores, so that they do not raise each other's CPU time.
    cores = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // jobs))}
    with ThreadPoolExecutor(jobs) as pool:
        running: dict[Future[None], PointT] = {}
        try:
            for point in waiting:
                whole = [*command, "--point", point.name]
                running[pool.submit(call, study.out, point.name, whole, study.work, cores)] = point
            for future in as_completed(running):
                yield running[future], future.result
        finally:  # also at an interrupt
            pool.shutdown(wait=False, cancel_futures=True)
            stop_all(lambda: any(future.running() for future in running))


def _run(study: RunnableStudy[PointT], point: PointT) -> None:
    """Run a point, unless another call on the same folder has done so, or runs it now.

    Raises:
        StudyError: it failed, or another call runs it.
    """
    lock = FileLock(study.folder(point))
    try:
        lock.take()
    except LockedError:
        raise StudyError(f"{point.name} is being trained by another call; {CONTINUES}") from None
    try:
        if not study.is_done(point):
            note_made(study.out, point.name)
            study.run_point(point)
    finally:
        lock.release()


def rows_of_done(study: RunnableStudy[PointT], point: PointT) -> list[Row]:
    """Return the rows of a finished point.

    Raises:
        StudyError: a file is missing, or holds something else.
    """
    try:
        rows = study.rows_of(point)
        reason = "" if rows else "it has no scores"
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:  # whatever JSON is in them
        rows, reason = [], one_line(error)
    if reason:
        raise StudyError(
            f"{study.folder(point)} is of a finished training, but cannot be read ({reason}); restore its files, or remove it "
            "and the training is done again."
        )
    return rows


def _write_results(study: RunnableStudy[PointT]) -> bool:
    """Write table, text and plot of the finished points, and return whether there are any."""
    done = [point for point in study.shown if study.is_done(point)]
    if rows := [row for point in done for row in rows_of_done(study, point)]:
        write_table(study.out / "results.csv", rows)
        figure, made = study.figure(rows), made_text(study.out, (point.name for point in done))
        parts = [study.text(rows), made]
        replace_text(study.out / TEXT, "\n\n".join(filter(None, parts)) + "\n")
        if made:  # a picture on a page is often all that is left of its study
            figure.suptitle(made, x=0.99, ha="right", fontsize=6, color="#777777")
        write_png(figure, study.out / "results.png", COLOURS, MOST_BYTES)
    return bool(rows)
