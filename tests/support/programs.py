"""Programs in processes of their own, forked from one that has imported what takes long."""

import functools
import json
import os
import re
import resource
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from tests.support.paths import BIN, ROOT
from tests.support.preloaded import LAUNCHERS, LIGHT
from tests.support.preloading import OwnServer, Program, Server

SHARED = "TESTS_PRELOADED"  # variable that names the folder of the server of several processes of tests
TWO_RANKS = ("two ranks",)  # in place of a launcher, where it does not matter which: see `start_ranks`


def clean_environment() -> dict[str, str]:
    """The variables of a process of its own: this environment's commands, one thread, and nothing of an outer launcher."""
    environment = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        environment.pop(name, None)
    return environment


def on_device(device) -> dict[str, str]:
    """The variables of a process that is to compute on a device: on a GPU only if it is named, as tests run on the CPU."""
    hides = {"CUDA_VISIBLE_DEVICES": ""} if device == "cpu" else {}
    return clean_environment() | {"DS_ACCELERATOR": device, **hides}


@contextmanager
def in_background(command, env=None, **kwargs) -> Iterator[subprocess.Popen]:
    """Run a command from the repository's root while the block lasts; none of its processes outlives the block."""
    command, env = [*map(str, command)], env or clean_environment()
    with subprocess.Popen(command, cwd=ROOT, env=env, text=True, start_new_session=True, **kwargs) as process:
        try:
            yield process
        finally:
            kill(process)


def stand_in(path: Path, body: str) -> None:
    """Write a program of bash, in whose folder others look for the one of its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/usr/bin/env bash\n{body}\n")
    path.chmod(0o755)


def kill(process: subprocess.Popen) -> None:
    """Kill a process, its group and its descendants, as launchers give their ranks groups of their own."""
    family = []
    with suppress(psutil.NoSuchProcess):
        outermost = psutil.Process(process.pid)
        family = [outermost, *outermost.children(recursive=True)]
    with suppress(ProcessLookupError):  # it has ended, or has yet to get its group
        os.killpg(process.pid, signal.SIGKILL)
    for each in family:
        with suppress(psutil.NoSuchProcess):
            each.kill()


def held_back(process):
    """The signals that a process holds back, without those that all processes hold for a moment while they fork."""
    held = signals_in(process, "SigBlk")
    return set() if signal.SIGINT in held else held  # which none of ours holds back


def signals_in(process, mask):
    """The signals in a mask of a process: SigBlk for those that it holds back, SigCgt for those that it handles."""
    (line,) = re.findall(rf"{mask}:\t(\w+)", Path(f"/proc/{process}/status").read_text())
    return {number for number in signal.valid_signals() if int(line, 16) >> (number - 1) & 1}


@functools.cache
def preloaded() -> Server:
    """The process that programs of this Python are forked from, with all slow imports done; processes of tests share one."""
    folder = os.environ.get(SHARED)
    return Server(Path(folder), clean_environment()) if folder else OwnServer(ROOT, clean_environment())


def start(command, timeout=240, limit_file_bytes=None, env=None, anew=False) -> subprocess.CompletedProcess:
    """Run a command of this environment from the repository's root and return what it printed.

    Args:
        command: the command; a launcher's ranks, too, are forked from `preloaded` where they can be.
        timeout: seconds that it may take.
        limit_file_bytes: size that no file that it writes may have.
        env: its variables, by default `clean_environment`.
        anew: whether all interpreters of it are new ones.
    """
    if command[0] == TWO_RANKS[0]:
        return start_ranks(2, *command[1:], timeout=timeout)
    command, env = [*map(str, command)], env or clean_environment()
    if not anew:
        command = with_forks(command)
        if preloaded().can_run(command, env):
            return run_together([(command, env)], timeout, limit_file_bytes)
    assert limit_file_bytes is None, command
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with in_background(command, env, **streams) as process:
        printed = process.communicate(timeout=timeout)
    return subprocess.CompletedProcess(command, process.returncode, *printed)


def with_forks(command) -> list[str]:
    """A command whose launcher, and what it starts with this Python, can be forked from `preloaded`."""
    first, *more = command
    more = [preloaded().python if word == sys.executable else word for word in more]
    return [*([sys.executable] if Path(first).name in LAUNCHERS else []), first, *more]


@contextmanager
def forked(command, output) -> Iterator[Program]:
    """Run a command of `preloaded` while the block lasts, as `in_background` does; it prints into a file."""
    program = preloaded().start(command, clean_environment(), output, output)
    try:
        yield program
    finally:
        kill(program)


def start_ranks(num_ranks, *command, timeout=240) -> subprocess.CompletedProcess:
    """Run a program of this Python on so many ranks, as torchrun does; the first failure ends them all."""
    command = [sys.executable, *map(str, command)]
    return run_together([(command, environment) for environment in environments(num_ranks)], timeout)


def environments(num_ranks) -> list[dict[str, str]]:
    """The variables of each rank, as torchrun sets them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = clean_environment() | {"WORLD_SIZE": str(num_ranks), "LOCAL_WORLD_SIZE": str(num_ranks)}
    common |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return [common | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(num_ranks)]


def cases_of(result, word="case") -> list:
    """What a program printed, as JSON, after a word at the start of its lines."""
    assert result.returncode == 0, result.stderr[-3000:]
    lines = (line.partition(" ") for line in result.stdout.splitlines())
    return [json.loads(text) for first, _, text in lines if first == word]


def run_together(commands, timeout, limit_file_bytes=None, server=None) -> subprocess.CompletedProcess:
    """Run commands of `preloaded` side by side until all have ended well or one has not; return all that they printed."""
    running = []
    with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
        try:
            running += [(server or preloaded()).start(*command, stdout, stderr) for command in commands]
            for program in running if limit_file_bytes else ():  # it imports for long before it writes
                resource.prlimit(program.pid, resource.RLIMIT_FSIZE, (limit_file_bytes, limit_file_bytes))
            pending, code, until = [*running], 0, time.monotonic() + timeout
            while pending and code == 0:
                ended, *_ = select.select(pending, [], [], max(0, until - time.monotonic()))
                if not ended:
                    raise subprocess.TimeoutExpired(commands[0][0], timeout)
                code = next((code for code in (program.wait() for program in ended) if code), 0)
                pending = [program for program in pending if program not in ended]
        finally:
            for program in running:
                kill(program)
        printed = []
        for stream in (stdout, stderr):
            stream.seek(0)
            printed.append(stream.read().decode())
    return subprocess.CompletedProcess(commands[0][0], code, *printed)


@functools.cache
def light() -> Server:
    """The process that programs are forked from of which it is asked what they import."""
    return OwnServer(ROOT, clean_environment(), LIGHT)


def imports_of(*command):
    """Exit code of a command, all that it prints, and the packages that it had imported by then."""
    words = [sys.executable, "-m", "tests.support.tell_imports", *map(str, command)]
    result = run_together([(words, clean_environment())], 60, server=light())
    *_, line = result.stdout.splitlines()
    assert line.startswith("imported: ")
    return result.returncode, result.stdout + result.stderr, set(line.split())
