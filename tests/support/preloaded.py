"""Runs programs of this project in processes that have imported torch, DeepSpeed and the like already.

A new interpreter takes 5 to 7 s of CPU time to import them, and the tests start hundreds. Here one process imports them
once, and every program is a fork of it: a process of its own with its own memory, environment, streams, session and exit code.
Nothing of ours is imported before the fork, and what an import reads from the environment is the same, see `can_run`.

    test  --(command, environment, two files)-->  server, which has imported  --fork-->  watcher  --fork-->  program
      '<------------------ process number, exit code --------------------------------------'
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

MODULES = (
    "torch",
    "torch.distributed",
    "deepspeed",
    "deepspeed.runtime.zero.muon.muon_optimizer",
    "transformers",
    "peft",
    "h5py",
    "scipy.io",
    "pydantic",
    "yaml",
    "tqdm",
    "einops",
    "psutil",
    "matplotlib.figure",
    "torch.utils.cpp_extension",
)
"""What is imported beforehand; nothing of this project."""

AT_IMPORT = ("PYTHON", "LD_", "DS_", "TORCH", "OMP_", "MKL_", "CUDA_", "HF_", "TRANSFORMERS_", "MALLOC_", "MPL")
"""Variables that begin so may be read by an import: the program's have to be the server's."""


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

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end and return its exit code; raises `subprocess.TimeoutExpired`."""
        if self.returncode is None:
            self._connection.settimeout(timeout)
            try:
                status = int(self._answers.readline())
            except TimeoutError:
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0) from None
            self.returncode = os.waitstatus_to_exitcode(status)
            self._connection.close()
        return self.returncode


class Server:
    """The process that has imported; it ends with the tests."""

    def __init__(self, root: Path, environment: dict[str, str]) -> None:
        """Start it in a folder with the variables that its programs will have at import."""
        self._environment = _read_at_import(environment)
        self._folder = tempfile.TemporaryDirectory()
        self._address = str(Path(self._folder.name) / "socket")
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(self._address)
            listener.listen(64)
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, str(listener.fileno()), str(Path(self._folder.name) / "bytecode")],
                cwd=root,
                env=environment,
                pass_fds=[listener.fileno()],
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        atexit.register(self._stop)

    def can_run(self, command: Sequence[str], environment: dict[str, str]) -> bool:
        """Whether a command is a script or module of this Python, whose imports would read what the server's did."""
        is_program = (
            command[0] == sys.executable and len(command) > 1 and (command[1] == "-m" or command[1][-3:] == ".py")
        )
        return is_program and _read_at_import(environment) == self._environment

    def start(
        self,
        command: Sequence[str],
        environment: dict[str, str],
        stdout: BinaryIO,
        stderr: BinaryIO,
    ) -> Program:
        """Start a command that it can run."""
        sys.audit("tests.program", command)
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(self._address)
        request = json.dumps({"command": [*command[1:]], "environment": environment}).encode()
        socket.send_fds(connection, [len(request).to_bytes(8)], [stdout.fileno(), stderr.fileno()])
        connection.sendall(request)
        return Program(connection)

    def _stop(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._folder.cleanup()


def _read_at_import(environment: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name.startswith(AT_IMPORT)}


def serve(listener: socket.socket) -> dict | None:
    """Fork for each command; return the request to the process that is to run it, in whose place it stands."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for watchers
    tests = os.getppid()
    while True:
        while not select.select([listener], [], [], 5)[0]:
            if os.getppid() != tests:  # they were killed
                sys.exit()
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            return _watch(connection)
        connection.close()


def _watch(connection: socket.socket) -> dict:
    """Fork the program and tell of its end; return in the program alone."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    length, streams, *_ = socket.recv_fds(connection, 8, 2)
    with connection.makefile("rb", buffering=0) as incoming:
        data = b""
        while len(data) < int.from_bytes(length):
            data += incoming.read(int.from_bytes(length) - len(data))
    program = os.fork()
    if program == 0:
        connection.close()
        os.setsid()
        for stream, number in zip(streams, (1, 2), strict=True):
            os.dup2(stream, number)
            os.close(stream)
        return json.loads(data)
    connection.sendall(f"{program}\n".encode())
    _, status = os.waitpid(program, 0)
    with suppress(BrokenPipeError):  # the test gave up on it
        connection.sendall(f"{status}\n".encode())
    os._exit(0)


def run(request: dict, bytecode: str) -> None:
    """Become the program; what it compiles is kept in the folder ``bytecode`` where the checkout may not have it."""
    os.environ.clear()
    os.environ.update(request["environment"])
    if sys.dont_write_bytecode:
        sys.dont_write_bytecode, sys.pycache_prefix = False, bytecode
    first, *arguments = request["command"]
    if first == "-m":
        module, *arguments = arguments
        sys.argv, sys.path[0] = ["-m", *arguments], os.getcwd()
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    else:
        sys.argv, sys.path[0] = [first, *arguments], str(Path(first).resolve().parent)
        runpy.run_path(first, run_name="__main__")


def main() -> None:
    """Import, and serve; what comes back is the program to run, after which this process ends as any interpreter does."""
    for name in MODULES:
        __import__(name)
    gc.collect()
    gc.freeze()  # else every fork walks, and so copies, all that was imported when it ends: 1.2 s
    request = serve(socket.socket(fileno=int(sys.argv[1])))
    bytecode = sys.argv[2]
    try:
        run(request, bytecode)
    except Exception:
        sys.excepthook(*sys.exc_info())  # the program's own, if it set one
        sys.exit(1)


if __name__ == "__main__":
    main()
