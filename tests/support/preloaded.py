"""Runs programs of this project in processes that have imported torch, DeepSpeed and the like already.

A new interpreter takes 5 to 7 s of CPU time to import them, and the tests start hundreds. Here one process imports them
once, and every program is a fork of it: a process of its own with its own memory, environment, streams, session and exit code.
Importing ours changes nothing outside them, which a test holds; what an import reads from the environment is the same, see
`can_run`. A program ends as any interpreter does, but for modules and libraries of others, which are left as they are.

    test  --(command, environment, two files)-->  server, which has imported  --fork-->  watcher  --fork-->  program
      '<------------------ process number, exit code --------------------------------------'

To a program ``sys.executable`` is a stand-in, see `stand_in_python`, which asks the server in the same way: what a launcher or
another program starts is forked as well.
"""

from __future__ import annotations

import atexit
import ctypes
import fcntl
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
import termios
import types
from collections.abc import Mapping, Sequence
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
    "matey.train.pretrain",
    "matey.train.start",
    "matey.commands.evaluate",
)
"""What is imported beforehand: packages of others, then what most programs use of ours."""

LIGHT = ("pydantic", "yaml", "matey.config")
"""The same where programs are to import none of those that take seconds; `sys.modules` still tells which they import."""

AT_IMPORT = ("PYTHON", "LD_", "DS_", "TORCH", "OMP_", "MKL_", "CUDA_", "HF_", "TRANSFORMERS_", "MALLOC_", "MPL")
"""Variables that begin so may be read by an import: the program's have to be the server's."""

LATER = ("PYTHONPATH", "TORCHELASTIC_", "TORCH_NCCL_", "CUDA_VISIBLE_DEVICES", "LD_LIBRARY_PATH")
"""Variables that launchers set and no import reads; the folders of the first are searched in the program."""

LAUNCHERS = ("torchrun", "deepspeed")
"""Programs without an ending in the folder of this Python that the server can run."""


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
    """The process that has imported, as one knows it who asks it to fork."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        """Know one by its folder, and by the variables that its programs have at import."""
        self._environment = _read_at_import(environment)
        self.folder = folder
        self.bin = folder / "bin"  # where the stand-in lies, and launchers that are run by it
        self._address, self.python = str(folder / "socket"), str(self.bin / "python")
        self._said = folder / "said"  # such as why a module could not be imported

    def can_run(self, command: Sequence[str], environment: dict[str, str]) -> bool:
        """Whether a command is a program of this Python, whose imports would read what the server's did."""
        # Of a stand-in such a text may be a process of multiprocessing, which has to be a child of who starts it.
        is_program = _is_program(command[1:]) or command[1:2] == ["-c"]
        return command[0] == sys.executable and is_program and _read_at_import(environment) == self._environment

    def start(
        self,
        command: Sequence[str],
        environment: dict[str, str],
        stdout: BinaryIO,
        stderr: BinaryIO,
        terminal: BinaryIO | None = None,
    ) -> Program:
        """Start a command that it can run, which may have a terminal of its own, from which it reads then."""
        sys.audit("tests.program", command)
        connection = socket.socket(socket.AF_UNIX)
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
        for name in LAUNCHERS:
            self._write(name, f'{self.python} {Path(sys.executable).with_name(name)} "$@"')
        with socket.socket(socket.AF_UNIX) as listener, self._said.open("wb") as said:
            listener.bind(self._address)
            listener.listen(64)
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, str(listener.fileno()), self._temporary.name, *modules],
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


def _is_program(arguments: Sequence[str]) -> bool:
    """Whether arguments of Python are a script, a launcher or a module, the first of them possibly ``-u``."""
    first, *_ = [*arguments[arguments[:1] == ["-u"] :], ""]
    return first == "-m" or first.endswith(".py") or Path(first).name in LAUNCHERS


def _read_at_import(environment: Mapping[str, str]) -> dict[str, str]:
    is_read = {name: name.startswith(AT_IMPORT) and not name.startswith(LATER) for name in environment}
    return {name: value for name, value in environment.items() if is_read[name]}


def serve(listener: socket.socket, at_import: dict[str, str]) -> dict:
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
            return _watch(connection, at_import)
        connection.close()


def _watch(connection: socket.socket, at_import: dict[str, str]) -> dict:
    """Fork the program and tell of its end; return in the program alone."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    length, streams, *_ = socket.recv_fds(connection, 8, 3)
    with connection.makefile("rb", buffering=0) as incoming:
        data = b""
        while len(data) < int.from_bytes(length):
            data += incoming.read(int.from_bytes(length) - len(data))
    request = json.loads(data)
    is_read = _read_at_import(request["environment"]) == at_import
    if "parent" in request and not (is_read and _is_program(request["command"])):
        connection.sendall(b"0\n")
        os._exit(0)
    program = os.fork()
    if program == 0:
        connection.close()
        os.setsid()
        for stream, number in zip(streams, (1, 2, 0), strict=False):
            os.dup2(stream, number)
            os.close(stream)
        if request.get("has_terminal"):
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        return request
    for stream in streams:
        os.close(stream)
    connection.sendall(f"{program}\n".encode())
    if connection in select.select([connection, os.pidfd_open(program)], [], [])[0]:  # nobody asks for its end any more
        with suppress(ProcessLookupError):
            os.killpg(program, signal.SIGKILL)
    _, status = os.waitpid(program, 0)
    with suppress(BrokenPipeError):  # the test gave up on it
        connection.sendall(f"{status}\n".encode())
    os._exit(0)


def run(request: dict, folder: Path) -> None:
    """Become the program; what it compiles is kept in the server's folder if the checkout may not have it."""
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.executable = str(folder / "bin" / "python")
    if sys.dont_write_bytecode:
        sys.dont_write_bytecode, sys.pycache_prefix = False, str(folder / "bytecode")
    if "parent" in request:  # by a stand-in
        parent = request["parent"]
        os.getppid = lambda: parent
        os.chdir(request["folder"])
        os.sched_setaffinity(0, request["affinity"])
    for number in request.get("ignored", ()):
        signal.signal(number, signal.SIG_IGN)
    sys.path[1:1] = [place for place in os.environ.get("PYTHONPATH", "").split(":") if place and place not in sys.path]
    first, *arguments = request["command"]
    if first == "-u":
        first, *arguments = arguments
        sys.stdout.reconfigure(write_through=True)
    if first == "-c":
        text, *arguments = arguments
        sys.argv, sys.path[0] = ["-c", *arguments], ""
        sys.modules["__main__"] = main = types.ModuleType("__main__")
        exec(compile(text, "<string>", "exec", dont_inherit=True), vars(main))
    elif first == "-m":
        module, *arguments = arguments
        sys.argv, sys.path[0] = ["-m", *arguments], os.getcwd()
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    else:
        sys.argv, sys.path[0] = [first, *arguments], str(Path(first).resolve().parent)
        runpy.run_path(first, run_name="__main__")


def _leave(names: Sequence[str]) -> None:
    """Keep modules and libraries of others as they are when the interpreter ends: a fork would copy what it takes apart."""
    kept = [sys.modules.pop(name, None) for name in names]
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(kept))
    if on_exit := getattr(ctypes.CDLL(None), "on_exit", None):  # of glibc
        on_exit(ctypes.CDLL(None)._exit, None)


def main() -> None:
    """Import, and serve; what comes back is the program to run, after which this process ends."""
    atexit.register(_leave, of_others := [])  # before all imports, so after all that they register
    at_import = _read_at_import(os.environ)  # some imports set variables
    for name in sys.argv[3:]:
        __import__(name)
    ours = {*sys.stdlib_module_names, "__main__", "matey", "tests"}
    of_others += [name for name in sys.modules if name.partition(".")[0] not in ours]
    gc.collect()
    gc.freeze()  # else every fork walks, and so copies, all that was imported when it ends: 1.2 s
    request = serve(socket.socket(fileno=int(sys.argv[1])), at_import)
    try:
        run(request, Path(sys.argv[2]))
    except Exception:
        sys.excepthook(*sys.exc_info())  # the program's own, if it set one
        sys.exit(1)


if __name__ == "__main__":
    main()
