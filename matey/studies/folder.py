"""The work of every study on disk: it claims its folder, runs commands with a log for each, and writes its table."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import yaml

from matey.checkpoints.durable import replace_bytes, replace_text
from matey.checkpoints.run_files import CONFIG
from matey.config.files import find_shipped
from matey.config.flags import started_as
from matey.mistakes import Mistake, one_line
from matey.process.launchers import program_of

Row = dict[str, Any]

STUDY, TEXT = "study.json", "results.txt"
CONTINUES = "the same command continues from here."
GRACE = 60.0  # seconds that a run has to save a checkpoint after it is asked to stop
KILL_AT_SIGTERM = ("srun", "mpirun", "mpiexec", "prterun")  # their ranks; they pass SIGUSR1 on to these
_running: set[subprocess.Popen[bytes]] = set()  # commands that threads of this process wait for


class StudyError(Mistake):
    """A study that cannot start or continue: one sentence that says what to do."""


def claim(out: Path, study: Mapping[str, Any], growing: Sequence[str] = ()) -> None:
    """Write the study's facts to its folder; refuse another study's folder, whose points would be taken for this one's.

    Args:
        out: folder of the study.
        study: the facts, as JSON holds them.
        growing: names of facts that are mappings, to which later calls may add entries; none of them may change.

    Raises:
        StudyError: the folder holds another study, with data or trainings.
    """
    out.mkdir(parents=True, exist_ok=True)
    before = check(out, study, growing)
    facts = {**study, **{name: {**before.get(name, {}), **study[name]} for name in growing}}
    path, text = out / STUDY, (json.dumps(facts) + "\n").encode()
    # Trainings that run at the same time all claim the folder, and read the first one's file.
    if not path.exists() or path.read_bytes() != text:
        replace_bytes(path, text)


def check(out: Path, study: Mapping[str, Any], growing: Sequence[str] = ()) -> Mapping[str, Any]:
    """Return the facts of the study in a folder; those given if there is none, or it has neither data nor trainings.

    Raises:
        StudyError: the folder holds another study, with data or trainings, or trainings without a file that says of what.
    """
    path = out / STUDY
    has_trainings = any((out / "points").glob("[!.]*"))
    if not path.exists() and not has_trainings:
        return study
    is_begun = has_trainings or (out / "data").exists()
    try:
        before = facts_in(path)
    except (OSError, ValueError) as error:
        if not is_begun:
            return study
        raise StudyError(f"{path} cannot be read ({one_line(error)}); restore it, or choose another --out.") from None
    held, own = _apart(before, growing), _apart(study, growing)
    # What is not in the file is a new entry, or a fact that an earlier version did not write; other calls have other entries.
    changed = [key for key in held if held[key] != own.get(key) and (key in own or len(key) == 1)]
    if changed and is_begun:
        there, here = ({" ".join(key): each[key] for key in changed if key in each} for each in (held, own))
        or_else = "" if has_trainings else f", or remove {out}, where nothing is trained yet"
        raise StudyError(f"{out} holds a study with {there}, this one has {here}; choose another --out{or_else}.")
    return study if changed else before


def facts_in(path: Path) -> dict[str, Any]:
    """Return the facts in a study's file.

    Raises:
        OSError, ValueError: the file is gone, or does not hold facts by their names.
    """
    facts = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(facts, dict) or not facts:
        raise ValueError("it holds no facts by their names")
    return facts


def _apart(study: Mapping[str, Any], growing: Sequence[str]) -> dict[tuple[str, ...], Any]:
    """Return the facts by their names, with the entries of growing ones apart."""
    found: dict[tuple[str, ...], Any] = {}
    for name, value in study.items():
        is_apart = name in growing and isinstance(value, dict)  # a folder of an earlier version may hold a list there
        found |= {(name, key): each for key, each in value.items()} if is_apart else {(name,): value}
    return found


def digest(*facts: object) -> str:
    """Return a short digest of facts whose texts tell them apart."""
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:12]


def config_fact(path: str) -> str:
    """Return the name of DeepSpeed's JSON and a digest of its values: its batches and number types make other models.

    Raises:
        StudyError: there is no such file, or it is not JSON.
    """
    found = find_shipped(path)
    try:
        return f"{found.name} {digest(json.loads(found.read_text(encoding='utf-8')))}"
    except (OSError, ValueError) as error:
        raise StudyError(f"--deepspeed_config {path} cannot be read: {one_line(error)}.") from None


def in_yaml(path: object) -> str:
    """Return a path as a YAML string, whatever its characters mean there."""
    return json.dumps(str(path), ensure_ascii=False)


def check_trained(folder: Path, launcher: str) -> None:
    """Raise StudyError if a command that has ended well has trained nothing in a folder."""
    if not (folder / CONFIG).exists():
        raise StudyError(f"{launcher!r} has ended without a training in {folder}; see --launcher.")


def yaml_values(path: Path) -> Any:  # noqa: ANN401
    """Return the values of a YAML file, which comments do not change."""
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def read_study(folder: Path) -> dict[str, Any]:
    """Return the content of a scaling study's ``study.json``, see `matey.studies.scaling.study.Study`.

    Raises:
        StudyError: the folder holds no such file.
    """
    try:
        tree: dict[str, Any] = json.loads((folder / STUDY).read_text(encoding="utf-8"))
    except FileNotFoundError:
        plan = f"{started_as('tools/scaling_study.py', 'study')} plan --out {shlex.quote(str(folder))}"
        raise StudyError(f"{folder} holds no study; make one with `{plan}`.") from None
    return tree


def script(
    path: Path,
    flags: Mapping[str, object],
    settings: Sequence[str] = (),
    launcher: Sequence[str] = (sys.executable,),
    words: Sequence[str] = (),
) -> list[str]:
    """Return the command that runs one of MATEY's scripts.

    Args:
        path: the script.
        flags: values by name of flag; a flag with the value True is given without a value.
        settings: overrides of a run's YAML, each passed by ``--set``.
        launcher: the command before the script.
        words: arguments without a flag.
    """
    command = [*launcher, str(path), *words]
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


def stop_all(are_waited_for: Callable[[], bool]) -> None:
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
