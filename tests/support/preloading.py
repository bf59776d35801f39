"""Starts programs as forks of `tests.support.preloaded`, and waits for them."""

from __future__ import annotations

import atexit
import json
import os
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

from tests.support.preloaded import LAUNCHERS, MODULES, is_program, read_at_import

SERVER = "tests.support.preloaded"


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
        sys.audit("tests.program", command)
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
        for name in LAUNCHERS:
            self._write(name, f'{self.python} {Path(sys.executable).with_name(name)} "$@"')
        with socket.socket(socket.AF_UNIX) as listener, self._said.open("wb") as said:
            listener.bind(self._address)
            listener.listen(64)
            self._process = subprocess.Popen(
                [sys.executable, "-m", SERVER, str(listener.fileno()), self._temporary.name, *modules],
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
