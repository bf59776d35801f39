"""The start of a command: decorators that begin and end it, signals held back, output that may lose its reader, memory.

Imports of PyTorch take seconds, in which a signal would kill a run silently; Slurm sends one at once if the time limit is
shorter than the requested notice. A pipe into ``head`` or ``tee`` ends, a terminal closes, the disk of a log is full. The
messages of a run are in its folder as well.
"""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache, wraps
from typing import ParamSpec, TextIO

from matey.mistakes import Mistake
from matey.process.ending import end_process, end_with_error
from matey.process.launchers import launchers_above, likely_place
from matey.process.signals import SIGNALS

Arguments = ParamSpec("Arguments")

INTERRUPTED = 130  # the exit code of shells for SIGINT


def entry_point(command: Callable[Arguments, int]) -> Callable[Arguments, int]:
    """Decorate a command that returns its exit code: a mistake ends it with its sentence and 2, ctrl-C with a word and 130.

    When the reader of its output ends, such as ``head``, the command ends silently. Settings that must precede the import of
    PyTorch are made here, and only one of several ranks prints a mistake. The command may open as many files as its hard limit
    allows: rank 0's connections are two for each rank.
    """

    @wraps(command)
    def run(*args: Arguments.args, **kwargs: Arguments.kwargs) -> int:
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        with suppress(ValueError):  # where there is no such limit, as on macOS, whose kernel has another
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        let_waiting_threads_sleep()
        rank, world_size = likely_place()
        try:
            if world_size > 1:
                launchers_above()  # found now, while they run: a rank ends with its launcher
            code = command(*args, **kwargs)
            if sys.stdout is not None:  # it is None if a launcher has closed it
                sys.stdout.flush()
            return code
        except Mistake as error:
            return end_with_error(rank, world_size, f"error: {error}")
        except BrokenPipeError:  # of the output: what else breaks is caught where it is written
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        except KeyboardInterrupt:
            if rank == 0:
                sys.stderr.write("Interrupted.\n")
            if world_size > 1:  # at a normal end, Python might wait for other ranks
                end_process(INTERRUPTED)
            return INTERRUPTED

    return run


@cache
def hold() -> None:
    """Block the signals, find the launcher while it runs, and let output outlive its reader.

    A program that handles the signals calls this once, before slow imports such as PyTorch. No other program may call it:
    processes that it starts would inherit the blocked signals.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    launchers_above()
    make_output_last()


class LastingOutput:
    """A text stream that discards its output once the reader has gone; all else is passed on to the stream."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> object:
        """Return the stream's attribute of that name."""
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write the text, or drop it; return its length."""
        try:
            self._stream.write(text)
        except OSError:
            self._let_go()
        return len(text)

    def flush(self) -> None:
        """Write the buffered text, or drop it."""
        try:
            self._stream.flush()
        except OSError:
            self._let_go()

    def _let_go(self) -> None:
        # The descriptor leads nowhere, so that neither buffered text nor other code that writes to it fails.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)


def make_output_last() -> None:
    """Put such streams in the place of standard output and error; what was closed from the start leads nowhere."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name) or open(os.devnull, "w", encoding="utf-8")
        with suppress(OSError):  # a descriptor that was a file and is a pipe now has no position
            stream.reconfigure(errors="backslashreplace")  # names of files may hold letters that the encoding lacks
        setattr(sys, name, LastingOutput(stream))


def let_waiting_threads_sleep() -> None:
    """Let threads that wait go to sleep soon, unless the user has decided how they wait.

    Long spinning, libgomp's default, makes a step several times as long if other programs use the cores too
    (docs/planning.md).
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")


# Constants of glibc's malloc.h.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3

LARGEST_KEPT = 32 << 20
"""Bytes of the largest block that glibc can keep; larger ones are the system's own mappings."""


def keep_freed_memory() -> None:
    """Keep blocks of up to `LARGEST_KEPT` bytes when they are freed, and the end of the heap with them.

    By default glibc returns freed blocks to the system, which hands them out again page by page, filled with zeros. That takes
    a tenth of a small model's step, in which the same tensors come again and again. If the user has set such an option in the
    environment (MALLOC_TRIM_THRESHOLD_ and its like), it stays. Without glibc nothing happens.
    """
    if platform.libc_ver()[0] != "glibc" or any(name.startswith("MALLOC_") for name in os.environ):
        return
    set_options({M_MMAP_THRESHOLD: LARGEST_KEPT, M_TRIM_THRESHOLD: 2**31 - 1, M_TOP_PAD: LARGEST_KEPT})


def set_options(options: Mapping[int, int]) -> None:
    """Give glibc's allocator values for some of its options."""
    libc = ctypes.CDLL(None)
    for option, value in options.items():
        libc.mallopt(option, value)
