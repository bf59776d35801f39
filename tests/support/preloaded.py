"""Runs programs of this project in processes that have imported torch, DeepSpeed and the like already.

A new interpreter takes 5 to 7 s of CPU time to import them, and the tests start hundreds. Here one process imports them
once, and every program is a fork of it: a process of its own with its own memory, environment, streams, session and exit code.
Importing ours changes nothing outside them, which a test holds; what an import reads from the environment is the same, see
`tests.support.programs`. A program ends as any interpreter does, but for modules and libraries of others, which are left
as they are.

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
import inspect
import json
import os
import runpy
import select
import signal
import socket
import sys
import termios
import types
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

MODULES = (
    "deepspeed",
    "deepspeed.runtime.zero.muon.muon_optimizer",
    "transformers",
    "peft",
    "scipy.io",
    "matplotlib.figure",
    "torch.utils.cpp_extension",
    "torch.distributed.run",
    "matey.train.run",
    "matey.commands.evaluate",
)
"""What is imported beforehand: packages of others, then what most programs use of ours."""

LIGHT = ("pydantic", "yaml", "matey.config")
"""The same where programs are to import none of those that take seconds; `sys.modules` still tells which they import."""

AT_IMPORT = ("PYTHON", "LD_", "DS_", "TORCH", "OMP_", "MKL_", "CUDA_", "HF_", "TRANSFORMERS_", "MALLOC_", "MPL")
"""Variables that begin so may be read by an import: the program's have to be the server's."""

LATER = ("PYTHONPATH", "TORCHELASTIC_", "TORCH_NCCL_", "CUDA_VISIBLE_DEVICES", "LD_LIBRARY_PATH")
"""Variables that launchers set and no import reads; the folders of the first are searched in the program."""

PROGRAMS = ("torchrun", "deepspeed")
"""Programs without an ending in the folder of this Python that the server can run."""


def is_program(arguments: Sequence[str]) -> bool:
    """Whether arguments of Python are a script, a launcher or a module, the first of them possibly ``-u``."""
    first, *_ = [*arguments[arguments[:1] == ["-u"] :], ""]
    return first == "-m" or first.endswith(".py") or Path(first).name in PROGRAMS


def read_at_import(environment: Mapping[str, str]) -> dict[str, str]:
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
    is_read = read_at_import(request["environment"]) == at_import
    if "parent" in request and not (is_read and is_program(request["command"])):
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
        if Path(first).name == "torchrun":  # what it logs, it asks all modules for the name of the caller's: 3 s
            inspect.getmodule = lambda *_: None
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
    at_import = read_at_import(os.environ)  # some imports set variables
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
