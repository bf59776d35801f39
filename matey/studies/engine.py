"""The engine of all studies: it runs their points one after another, or as jobs of Slurm, and writes table and plot.

A study is a folder: ``study.json`` says which one, ``points/NAME/rows.json`` has the rows of a finished point, and
``logs/NAME.txt`` what its commands printed. Rows of all finished points become ``results.csv``, ``results.txt`` and
``results.png``. The same command continues a study that was stopped.
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
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import psutil
import torch
import yaml
from tqdm import tqdm

from matey.checkpoints.run_files import replace_text
from matey.config.loading import ROOT, is_installed
from matey.mistakes import Mistake
from matey.process.launchers import program_of
from matey.report.pictures import write_png
from matey.studies.cases import Simulated, StudyError
from matey.studies.table import Column, Panel, Row, results_figure, results_table
from matey.train.folder import FileLock, LockedError

STUDY, TEXT, ROWS, SUBMIT = "study.json", "results.txt", "rows.json", "submit.sh"
CONTINUES = "the same command continues from here."
GRACE = 60.0  # seconds that a run has to save a checkpoint after it is asked to stop
KILL_AT_SIGTERM = ("srun", "mpirun", "mpiexec", "prterun")  # their ranks; they pass SIGUSR1 on to these


class Point(Protocol):
    """One training of a study."""

    @property
    def name(self) -> str:
        """The name of the point's folder and log."""


PointT = TypeVar("PointT", bound=Point)


@dataclass(frozen=True, kw_only=True)
class Study(ABC, Generic[PointT]):
    """The points of a study, how a point is run, and which numbers of finished points are shown.

    Attributes:
        out: folder of the study.
        work: folder in which commands are started.
        points: the points, in the order in which they run.
        settings: overrides of the YAML of every training.
        launcher: the command before a script that trains.
        deepspeed_config: path of DeepSpeed's JSON.
        machine: name or file of the machine for the plan.
        ranks: number of ranks of each training.
    """

    columns: ClassVar[Mapping[str, Column]]
    """The numbers beside the errors in the table, by their keys in the rows."""
    by_system: ClassVar[bool] = False
    """Whether each system has columns of its own in the table."""

    out: Path
    work: Path
    points: Sequence[PointT]
    settings: tuple[str, ...] = ()
    launcher: Sequence[str] = (sys.executable,)
    deepspeed_config: str = "ds_configs/zero1.json"
    machine: str = "cpu"
    ranks: int = 1

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

    @abstractmethod
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
    def panels(self, rows: Sequence[Row]) -> list[list[Panel]]:
        """Return the panels of the plot, row by row."""

    def job(self, point: PointT, command: Sequence[str]) -> list[str]:
        """Return the words after ``sbatch`` and its options that run a point; the command runs it with ``--point NAME``."""
        return ["--wrap", f"exec {shlex.join([*command, '--point', point.name])}"]

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

    def data_folder(self, data: Simulated) -> Path:
        """Return the folder of a simulated data set, which all studies beside this one share."""
        return self.out.parent / "data" / data.name

    def simulate(self, data: Simulated) -> None:
        """Simulate a data set into its folder, unless it exists.

        Raises:
            StudyError: the simulation failed.
        """
        flags: dict[str, object] = {"out": self.data_folder(data), "trajectories": data.trajectories}
        flags |= {"resolution": data.resolution, "frames": data.frames}
        call(self.out, f"simulate-{data.name}", script("tools/simulate.py", flags, words=[data.system]), self.work)

    def train(self, point: PointT, path: str, config: Path, settings: Sequence[str], **flags: object) -> None:
        """Run a script that trains, through the launcher; an interrupted training continues.

        Raises:
            StudyError: it failed.
        """
        flags = {"deepspeed_config": self.deepspeed_config, "config": config, "resume": True, **flags}
        call(self.out, point.name, script(path, flags, settings, self.launcher), self.work)


def run_study(study: Study[PointT], only: str | None = None) -> str:
    """Run the remaining points one after another; write table and plot after each; return the text of the results.

    Args:
        study: the study.
        only: name of the only point to run.

    Raises:
        StudyError: points failed (raised after all others have run), no point has this name, or the folder holds another
            study.
    """
    if only is not None and only not in (names := [point.name for point in study.points]):
        raise StudyError(f"--point: the study has no point {only!r}; it has {', '.join(names)}.")
    claim(study.out, study.facts)
    waiting = [point for point in study.waiting if only in (None, point.name)]
    if waiting:
        study.prepare(waiting)
    failures = []
    for point in tqdm(waiting, desc=study.facts["study"], unit="run", disable=None):
        try:
            _run(study, point)
        except Mistake as error:
            failures.append(str(error))
        else:
            _write_results(study)
    if failures:
        head = f"{len(failures)} of {len(waiting)} trainings are not done: " if len(waiting) > 1 else ""
        raise StudyError(head + " ".join(failures))
    return _write_results(study)


def write_jobs(study: Study[PointT], command: Sequence[str]) -> Path:
    """Write a script that submits each remaining point as a job of Slurm, and return its path.

    What is given to the script goes on to ``sbatch``. The inputs shared by the points are made here first.

    Args:
        study: the study.
        command: the command that runs the study; with ``--point NAME`` it runs one point alone.

    Raises:
        StudyError: the folder holds another study.
    """
    claim(study.out, study.facts)
    if waiting := study.waiting:
        study.prepare(waiting)
    (study.out / "logs").mkdir(exist_ok=True)  # Slurm does not make the folder
    lines = [
        "#!/usr/bin/env bash",
        f"# bash {SUBMIT} [OPTIONS OF sbatch]",
        "set -e",
        f"cd {shlex.quote(str(study.work))}",
    ]
    for point in waiting:
        log = study.out / "logs" / f"{point.name}.txt"
        own = [f"--job-name=matey-{study.facts['study']}-{point.name}", f"--output={log}", "--open-mode=append"]
        lines.append(f'sbatch {shlex.join(own)} "$@" {shlex.join(study.job(point, command))}')
    replace_text(study.out / SUBMIT, "\n".join([*lines, ""]))
    return study.out / SUBMIT


def _run(study: Study[PointT], point: PointT) -> None:
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
            study.folder(point).mkdir(parents=True, exist_ok=True)
            rows = study.run_point(point)
            replace_text(study.folder(point) / ROWS, json.dumps({"made": _origin(), "rows": rows}) + "\n")
    finally:
        lock.release()


def _write_results(study: Study[PointT]) -> str:
    """Write table, text and plot of all finished points, also of other calls on the folder, and return the text."""
    order = {point.name: number for number, point in enumerate(study.points)}
    files = sorted(study.out.glob(f"points/*/{ROWS}"), key=lambda path: (order.get(path.parent.name, len(order)), path))
    rows: list[Row] = []
    origins: Counter[str] = Counter()
    for path in files:
        point = json.loads(path.read_text(encoding="utf-8"))
        rows += point["rows"]
        origins[point["made"]] += 1
    made = "\n".join(f"{count} training{'s' * (count > 1)} by {origin}." for origin, count in origins.items())
    text = f"{results_table(rows, study.columns, by_system=study.by_system)}\n\n{made}"
    figure = results_figure(study.panels(rows), study.columns)
    write_table(study.out / "results.csv", rows)
    replace_text(study.out / TEXT, f"{text}\n")
    write_png(figure, study.out / "results.png")
    return text


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


def claim(out: Path, facts: Mapping[str, Any]) -> None:
    """Write the study's facts to its folder; refuse another study's folder, whose points would be taken for this one's.

    Raises:
        StudyError: the folder holds trainings of another study.
    """
    out.mkdir(parents=True, exist_ok=True)
    path = out / STUDY
    if any((out / "points").glob("[!.]*")):
        before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        if changed := [key for key in {**before, **facts} if before.get(key) != facts.get(key)]:
            there, here = ({key: each[key] for key in changed if key in each} for each in (before, facts))
            raise StudyError(f"{out} holds a study with {there}, this one has {here}; choose another --out.")
    replace_text(path, json.dumps(facts) + "\n")


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


def on_this_machine(ranks: int) -> list[str]:
    """Return the command that starts a script on a number of ranks of this machine."""
    several = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    return [sys.executable, *(several if ranks > 1 else [])]


def call(
    out: Path, name: str, command: Sequence[str], root: Path, environment: Mapping[str, str] | None = None
) -> None:
    """Run a command from the root folder, and write its output to a log.

    Args:
        out: folder of the study.
        name: name of the log.
        command: the command and its arguments.
        root: folder in which the command is started.
        environment: environment variables added to those of this process.

    Raises:
        StudyError: the command failed; the message has its last error or line.
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
        try:
            code = process.wait()
        finally:  # at an interrupt
            _stop(process, command)
    if code:
        said = log.read_bytes()[start:].decode(errors="replace").splitlines()
        lines = ["", *(line.strip() for line in said if line.strip())]
        last = next((line for line in reversed(lines) if line.startswith("error: ") or "Error: " in line), lines[-1])
        raise StudyError(f"{name} ended with code {code}: {last} (all of it in {log}); {CONTINUES}")


def _stop(process: subprocess.Popen[bytes], command: Sequence[str]) -> None:
    """Ask a running command to save and end, and wait for it and for the processes below it.

    A launcher that is killed at once would leave its ranks running, and the ranks of `deepspeed` may end after it.
    """
    if process.poll() is not None:
        return
    below: list[psutil.Process] = []
    with suppress(psutil.Error):  # it has just ended
        below = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGUSR1 if program_of([*command]) in KILL_AT_SIGTERM else signal.SIGTERM)
    try:
        process.wait(GRACE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    psutil.wait_procs(below, GRACE)


def write_table(path: Path, rows: Sequence[Row]) -> None:
    """Write rows with the same keys as comma-separated values; a reader finds the old file or the new one, whole."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, rows[0] if rows else ())
    writer.writeheader()
    writer.writerows(rows)
    replace_text(path, text.getvalue())
