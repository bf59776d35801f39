"""The engine of all studies: it runs their points, here or as Slurm jobs, goes on where it stopped, and writes table and plot.

A study is a folder: ``study.json`` says which one, ``points/NAME/rows.json`` has the rows of a finished point, and
``logs/NAME.txt`` what its commands printed. Rows of all finished points become ``results.csv``, ``results.txt`` and
``results.png``.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import platform
import shlex
import signal
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import suppress
from datetime import date
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import psutil
import torch
import yaml
from matplotlib.figure import Figure
from tqdm import tqdm

from matey.checkpoints.durable import replace_text
from matey.config import ConfigError
from matey.config.files import ROOT, is_installed
from matey.mistakes import Mistake, one_line
from matey.process.launchers import program_of
from matey.report.pictures import write_png
from matey.studies.cases import StudyError
from matey.train.folder import FileLock, LockedError

Row = dict[str, Any]

STUDY, TEXT, ROWS = "study.json", "results.txt", "rows.json"
CONTINUES = "the same command continues from here."
COLOURS = 48  # colours of a figure: the lines have seven, their edges and the grid the rest
MOST_BYTES = 100_000  # of a figure, so that pages of the repository can have it as it is
GRACE = 60.0  # seconds that a run has to save a checkpoint after it is asked to stop
KILL_AT_SIGTERM = ("srun", "mpirun", "mpiexec", "prterun")  # their ranks; they pass SIGUSR1 on to these
_running: set[subprocess.Popen[bytes]] = set()  # commands that threads of this process wait for


class Point(Protocol):
    """One training of a study."""

    @property
    def name(self) -> str:
        """The name of the point's folder and log."""


PointT = TypeVar("PointT", bound=Point)


class RunnableStudy(ABC, Generic[PointT]):
    """The points of a study, how a point is run, and how finished points are shown.

    Attributes:
        out: folder of the study.
        work: folder in which commands are started.
        points: the points, in the order in which they run.
    """

    out: Path
    work: Path
    points: Sequence[PointT]

    @property
    @abstractmethod
    def facts(self) -> Mapping[str, Any]:
        """Facts that identify the study, with its name under ``study``; a folder holds one study only."""

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
    def run_point(self, point: PointT) -> list[Row]:
        """Train and score a point in its folder, and return its rows; an interrupted point continues.

        Raises:
            StudyError: it failed.
        """

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
        return (self.folder(point) / ROWS).exists()

    @property
    def waiting(self) -> list[PointT]:
        """The points that are not done."""
        return [point for point in self.points if not self.is_done(point)]


def run_study(study: RunnableStudy[PointT], command: Sequence[str], jobs: int) -> str:
    """Run the remaining points, `jobs` at a time; write table and plot after each; return the text of the results.

    Args:
        study: the study.
        command: the command that runs the study; with ``--point NAME`` it runs one point alone.
        jobs: number of points run at the same time, each on its share of the cores.

    Raises:
        StudyError: points failed (raised after all others have run), or the folder holds another study.
    """
    claim(study.out, study.facts)
    if waiting := study.waiting:
        study.prepare(waiting)
    _write_results(study)
    total, failures = len(study.points), []
    with tqdm(total=total, initial=total - len(waiting), desc=study.facts["study"], unit="run", disable=None) as bar:
        for point, wait in _started(study, waiting, command, jobs):
            try:
                wait()
            except Mistake as error:
                failures.append((point, str(error)))
            else:
                _write_results(study)
                bar.update()
    if left := [error for point, error in failures if not study.is_done(point)]:  # others are, by another call
        head = f"{len(left)} of {len(waiting)} trainings are not done: " if len(waiting) > 1 else ""
        raise StudyError(head + " ".join(left))
    return draw(study)


def run_one(study: RunnableStudy[PointT], name: str) -> None:
    """Run the point with a name, unless it is done.

    Raises:
        StudyError: the point failed, or no point has this name.
    """
    found = next((point for point in study.points if point.name == name), None)
    if found is None:
        raise StudyError(f"--point: the study has no point {name!r}; --list names them.")
    claim(study.out, study.facts)
    if not study.is_done(found):
        study.prepare([found])  # some of them may have been lost since the study was submitted
        _run(study, found)


def draw(study: RunnableStudy[PointT]) -> str:
    """Write table and plot of the points that are done, and run none; return the text of the results.

    Raises:
        StudyError: no point is done, or the folder holds another study.
    """
    check(study.out, study.facts)
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
    claim(study.out, study.facts)
    if waiting := study.waiting:
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
    say("Table and plot of what is done are written by the same command with --draw instead of --submit.")


def submit_once(name: str, number: Path, arguments: Sequence[str], folder: Path, say: Callable[[str], None]) -> str:
    """Submit a point's job by `sbatch`, unless the file ``number`` shows that it was submitted; return the job's number.

    Raises:
        ConfigError: Slurm is missing, or refuses the job.
    """
    if number.exists():
        job = number.read_text(encoding="utf-8").strip()
        say(f"{name}: submitted before as job {job}; remove {number} to submit it again")
        return job
    command = ["sbatch", "--parsable", *arguments]
    try:
        result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise ConfigError("There is no sbatch here; submit on a login node of the cluster.") from None
    if result.returncode or not result.stdout.strip():
        raise ConfigError(f"sbatch did not take {arguments[-1]}: {result.stderr.strip() or result.stdout.strip()}")
    job = result.stdout.strip().splitlines()[-1].split(";")[0]
    replace_text(number, f"{job}\n")
    say(f"{name}: job {job}")
    return job


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
            _stop_all(lambda: any(future.running() for future in running))


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
            rows = study.run_point(point)
            study.folder(point).mkdir(parents=True, exist_ok=True)
            replace_text(study.folder(point) / ROWS, json.dumps({"made": _origin(), "rows": rows}) + "\n")
    finally:
        lock.release()


def _write_results(study: RunnableStudy[PointT]) -> bool:
    """Write table, text and plot of all finished points in the folder, and return whether there are any."""
    order = {point.name: number for number, point in enumerate(study.points)}
    files = sorted(study.out.glob(f"points/*/{ROWS}"), key=lambda path: (order.get(path.parent.name, len(order)), path))
    rows: list[Row] = []
    origins: Counter[str] = Counter()
    for path in files:
        try:
            point = json.loads(path.read_text(encoding="utf-8"))
            rows += point["rows"]
            origins[point["made"]] += 1
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise StudyError(
                f"{path} cannot be read ({one_line(error)}); remove it, and its training is scored again."
            ) from None
    if rows:
        made = "\n".join(f"{count} training{'s' * (count > 1)} by {origin}." for origin, count in origins.items())
        figure = study.figure(rows)
        write_table(study.out / "results.csv", rows)
        replace_text(study.out / TEXT, f"{study.text(rows)}\n\n{made}\n")
        figure.suptitle(made, x=0.99, ha="right", fontsize=6, color="#777777")  # often all that is left of a study
        write_png(figure, study.out / "results.png", COLOURS, MOST_BYTES)
    return bool(rows)


def _origin() -> str:
    """Return the version of the code, the machine and the day: a checkout's commit has ``-dirty`` if files differ from it."""
    code = f"matey-pde {version('matey-pde')}"
    if not is_installed():
        command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--exclude=*"]
        with suppress(OSError, subprocess.CalledProcessError):  # a copy without git
            code = f"commit {subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()}"
    processor = platform.machine()
    with suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        processor = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    gpu = f" with {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{code} on {os.cpu_count()} cores of {processor}{gpu}, {date.today().isoformat()}"


def claim(out: Path, study: Mapping[str, Any]) -> None:
    """Write the study's facts to its folder; refuse another study's folder, whose points would be taken for this one's.

    Raises:
        StudyError: the folder holds another study, with data or trainings.
    """
    out.mkdir(parents=True, exist_ok=True)
    check(out, study)
    path, text = out / STUDY, json.dumps(study) + "\n"
    # Trainings that run at the same time all claim the folder, and read the first one's file.
    if not path.exists() or path.read_text(encoding="utf-8", errors="replace") != text:
        replace_text(path, text)


def check(out: Path, study: Mapping[str, Any]) -> None:
    """Raise StudyError if a folder holds data or trainings of another study, or of none that can be read."""
    if not any((out / "points").glob("[!.]*")) and not (out / "data").exists():
        return
    try:
        before = facts_in(out / STUDY)
    except (OSError, ValueError) as error:
        raise StudyError(
            f"{out / STUDY} cannot be read ({one_line(error)}); restore it, or choose another --out."
        ) from None
    if changed := [key for key in {**before, **study} if before.get(key) != study.get(key)]:
        there, here = ({key: each[key] for key in changed if key in each} for each in (before, study))
        raise StudyError(f"{out} holds a study with {there}, this one has {here}; choose another --out.")


def facts_in(path: Path) -> dict[str, Any]:
    """Return the facts in a study's file.

    Raises:
        OSError, ValueError: the file is gone, or does not hold facts by their names.
    """
    facts = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(facts, dict) or not facts:
        raise ValueError("it holds no facts by their names")
    return facts


def digest(*facts: object) -> str:
    """Return a short digest of facts whose texts tell them apart; of YAML and JSON files, it is that of their values."""
    values = [yaml.safe_load(fact.read_text(encoding="utf-8")) if isinstance(fact, Path) else fact for fact in facts]
    return hashlib.sha256(repr(values).encode()).hexdigest()[:12]


def in_yaml(path: object) -> str:
    """Return a path as a YAML string, whatever its characters mean there."""
    return json.dumps(str(path), ensure_ascii=False)


def script(
    path: str,
    flags: Mapping[str, object],
    settings: Sequence[str] = (),
    launcher: Sequence[str] = (sys.executable,),
    words: Sequence[str] = (),
) -> list[str]:
    """Return the command that runs one of MATEY's scripts.

    Args:
        path: the script, relative to the root of the repository.
        flags: values by name of flag; a flag with the value True is given without a value.
        settings: overrides of a run's YAML, each passed by ``--set``.
        launcher: the command before the script.
        words: arguments without a flag.
    """
    command = [*launcher, str(ROOT / path), *words]
    for name, value in flags.items():
        command += [f"--{name}"] if value is True else [f"--{name}", str(value)]
    return [*command, *(part for setting in settings for part in ("--set", setting))]


def call(
    out: Path,
    name: str,
    command: Sequence[str],
    root: Path,
    environment: Mapping[str, str] | None = None,
    limit: float | None = None,
) -> None:
    """Run a command from the root folder, and write its output to a log.

    Args:
        out: folder of the study.
        name: name of the log.
        command: the command and its arguments.
        root: root folder of the repository.
        environment: environment variables added to those of this process.
        limit: seconds after which the command is asked to save and stop; None for no limit.

    Raises:
        StudyError: the command failed (the message has its last error or line), or exceeded the limit.
    """
    log = out / "logs" / f"{name}.txt"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8") as file:
        file.write(f"$ {shlex.join(command)}\n")
        file.flush()
        start = file.tell()
        variables = {**os.environ, **(environment or {})}
        try:
            process = subprocess.Popen(command, cwd=root, env=variables, stdout=file, stderr=subprocess.STDOUT)
        except OSError as error:
            raise StudyError(f"{name} cannot be started: {command[0]}: {error.strerror}; see --launcher.") from None
        _running.add(process)
        try:
            code = process.wait(limit)
        except subprocess.TimeoutExpired as error:
            raise StudyError(
                f"{name} was not finished in {error.timeout / 60:g} minutes; its work is kept: run the same command "
                "with a larger --limit to continue."
            ) from None
        finally:
            _stop(process)
            _running.discard(process)
    if code:
        said = log.read_bytes()[start:].decode(errors="replace").splitlines()
        lines = ["", *(line.strip() for line in said if line.strip())]
        last = next((line for line in reversed(lines) if line.startswith("error: ") or "Error: " in line), lines[-1])
        if last.endswith(CONTINUES):  # a point in a process of its own has said all this
            raise StudyError(last.removeprefix("error: "))
        raise StudyError(f"{name} ended with code {code}: {last} (all of it in {log}); {CONTINUES}")


def _stop_all(are_waited_for: Callable[[], bool]) -> None:
    """Ask the commands that threads of this process wait for, or are starting, to save and end; kill those that do not."""
    asked: dict[subprocess.Popen[bytes], list[psutil.Process]] = {}
    end = time.monotonic() + GRACE
    while are_waited_for():
        for process in [*_running]:
            if process not in asked:
                asked[process] = _ask(process)
            elif time.monotonic() > end:
                process.kill()
        time.sleep(0.1)
    psutil.wait_procs([each for ranks in asked.values() for each in ranks], max(0, end - time.monotonic()))


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ask a running process to stop; a launcher that is killed at once would leave its ranks running."""
    if process.poll() is None:
        ranks = _ask(process)
        try:
            process.wait(GRACE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        psutil.wait_procs(ranks, GRACE)


def _ask(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """Ask a command to save and end; return the processes below it, which may end later, as the ranks of `deepspeed` do."""
    below: list[psutil.Process] = []
    with suppress(psutil.Error):  # it has just ended
        below = psutil.Process(process.pid).children(recursive=True)
    program = program_of([str(word) for word in process.args])  # type: ignore[union-attr]
    process.send_signal(signal.SIGUSR1 if program in KILL_AT_SIGTERM else signal.SIGTERM)
    return below


def write_table(path: Path, rows: Sequence[Row]) -> None:
    """Write rows with the same keys as comma-separated values; a reader finds the old file or the new one, whole."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, rows[0] if rows else ())
    writer.writeheader()
    writer.writerows(rows)
    replace_text(path, text.getvalue())
