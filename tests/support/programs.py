"""Programs in processes of their own, forked from one that has imported what takes long, see `tests.support.preloaded`."""

from __future__ import annotations

import atexit
import functools
import importlib.util
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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import psutil

from matey.mistakes import Mistake
from tests.support.paths import BIN, ROOT
from tests.support.preloaded import LIGHT, MODULES, PROGRAMS, is_program, read_at_import

SHARED = "TESTS_PRELOADED"  # variable that names the folder of the server of several processes of tests
TWO_RANKS = ("two ranks",)  # in place of a launcher, where it does not matter which: see `start_ranks`

PYTHON = [sys.executable]
TORCHRUN = [BIN / "torchrun", "--nproc_per_node", "2"]
DEEPSPEED = [BIN / "deepspeed", "--num_gpus", "2"]
MPIRUN = [BIN / "mpirun", "--allow-run-as-root", "--oversubscribe", "-np", "2", sys.executable]
LAUNCHERS = {"deepspeed": DEEPSPEED, "torchrun": TORCHRUN, "mpirun": MPIRUN}


class Program:
    """A program that runs, as `subprocess.Popen` is one.

    Attributes:
        pid: its process number, which is that of its session as well.
        returncode: its exit code, minus the number of the signal that ended it, or None while it runs.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._answers = connection.makefile("r")
        self._connection = connection
        self.pid = int(self._answers.readline())
        self.returncode: int | None = None

    def fileno(self) -> int:
        """Return what can be read from when the program has ended, as `select.select` asks for."""
        return self._connection.fileno()

    def poll(self) -> int | None:
        """Return its exit code if it has ended."""
        return self.wait() if self.returncode is not None or select.select([self], [], [], 0)[0] else None

    def wait(self, timeout: float = 240) -> int:
        """Wait for its end and return its exit code; raises `subprocess.TimeoutExpired`."""
        if self.returncode is None:
            self._connection.settimeout(timeout)
            try:
                status = int(self._answers.readline())
            except TimeoutError:
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout) from None
            self.returncode = os.waitstatus_to_exitcode(status)
            self._connection.close()
        return self.returncode


class Server:
    """The process that has imported, as one knows it who asks it to fork."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        """Know one by its folder, and by the variables that its programs have at import."""
        self._environment = read_at_import(environment)
        self.folder = folder
        self.bin = folder / "bin"  # where the stand-in lies, and launchers that are run by it
        self._address, self.python = str(folder / "socket"), str(self.bin / "python")
        self._said = folder / "said"  # such as why a module could not be imported

    def can_run(self, command: Sequence[str], environment: dict[str, str]) -> bool:
        """Whether a command is a program of this Python, whose imports would read what the server's did."""
        # Of a stand-in such a text may be a process of multiprocessing, which has to be a child of who starts it.
        may_run = is_program(command[1:]) or command[1:2] == ["-c"]
        return command[0] == sys.executable and may_run and read_at_import(environment) == self._environment

    def start(
        self,
        command: Sequence[str],
        environment: dict[str, str],
        stdout: BinaryIO,
        stderr: BinaryIO,
        terminal: BinaryIO | None = None,
    ) -> Program:
        """Start a command that it can run, which may have a terminal of its own, from which it reads then."""
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(240)  # it may be importing still
        try:
            connection.connect(self._address)
        except OSError as error:
            raise RuntimeError(
                f"The process that programs are forked from has ended: {self._said.read_text()}"
            ) from error
        streams = [stdout, stderr, *([] if terminal is None else [terminal])]
        told = {"command": [*command[1:]], "environment": environment, "has_terminal": terminal is not None}
        request = json.dumps(told).encode()
        socket.send_fds(connection, [len(request).to_bytes(8)], [stream.fileno() for stream in streams])
        connection.sendall(request)
        return Program(connection)


class OwnServer(Server):
    """One that ends with the process of the tests that has started it."""

    def __init__(self, root: Path, environment: dict[str, str], modules: Sequence[str] = MODULES) -> None:
        """Start it in a folder with the variables that its programs will have at import, and what it is to import."""
        self._temporary = tempfile.TemporaryDirectory()
        super().__init__(Path(self._temporary.name), environment)
        self.bin.mkdir()
        stand_in = Path(__file__).with_name("stand_in_python.py")
        self._write("python", f'{sys.executable} -IS {stand_in} {self._address} {sys.executable} "$@"')
        for name in PROGRAMS:
            self._write(name, f'{self.python} {Path(sys.executable).with_name(name)} "$@"')
        with socket.socket(socket.AF_UNIX) as listener, self._said.open("wb") as said:
            listener.bind(self._address)
            listener.listen(64)
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "tests.support.preloaded",
                    str(listener.fileno()),
                    self._temporary.name,
                    *modules,
                ],
                cwd=root,
                env=environment,
                pass_fds=[listener.fileno()],
                stdin=subprocess.DEVNULL,
                stderr=said,
                start_new_session=True,
            )
        atexit.register(self._stop)

    def _write(self, name: str, command: str) -> None:
        (self.bin / name).write_text(f"#!/bin/sh\nexec {command}\n")
        (self.bin / name).chmod(0o755)

    def _stop(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._temporary.cleanup()


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


def script(path):
    """A script of the repository as a module."""
    spec = importlib.util.spec_from_file_location(path.replace("/", "_").removesuffix(".py"), ROOT / path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


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
    return [*([sys.executable] if Path(first).name in PROGRAMS else []), first, *more]


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


TELL = """
import runpy, sys
sys.argv = sys.argv[1:]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    print("imported:", *sorted({name.split(".")[0] for name in sys.modules}))
"""


def imports_of(*command):
    """Exit code of a command, all that it prints, and the packages that it had imported by then."""
    words = [sys.executable, "-c", TELL, *map(str, command)]
    result = run_together([(words, clean_environment())], 60, server=light())
    *_, line = result.stdout.splitlines()
    assert line.startswith("imported: ")
    return result.returncode, result.stdout + result.stderr, set(line.split())


def said_to_nobody(read):
    """The message of the error that another user meets; root may read everything."""
    here, there = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            if os.getuid() == 0:
                os.setuid(65534)  # nobody's
            read()
        except Mistake as error:
            os.write(there, str(error).encode())
        finally:
            os._exit(0)
    os.close(there)
    with open(here) as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    return text
