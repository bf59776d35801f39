"""Decorators that begin and end a command."""

from __future__ import annotations

import os
import resource
import select
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from typing import ParamSpec

from matey.mistakes import Mistake
from matey.process.ending import end_process, end_with_error
from matey.process.launchers import launchers_above, likely_place
from matey.process.resources import let_waiting_threads_sleep

Arguments = ParamSpec("Arguments")

INTERRUPTED = 130  # the exit code of shells for SIGINT


def interruptible(command: Callable[Arguments, int]) -> Callable[Arguments, int]:
    """Decorate a command that returns its exit code: ctrl-C ends it with a message, which rank 0 alone prints.

    It may open as many files as its hard limit allows: rank 0's connections are two for each rank.
    """

    @wraps(command)
    def run(*args: Arguments.args, **kwargs: Arguments.kwargs) -> int:
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        with suppress(ValueError):  # where there is no such limit, as on macOS, whose kernel has another
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        try:
            return command(*args, **kwargs)
        except KeyboardInterrupt:
            rank, world_size = likely_place()
            if rank == 0:
                sys.stderr.write("Interrupted.\n")
            if world_size > 1:  # at a normal end, Python might wait for other ranks
                end_process(INTERRUPTED)
            return INTERRUPTED

    return run


def entry_point(command: Callable[Arguments, int]) -> Callable[Arguments, int]:
    """Decorate a command as `interruptible` does; a mistake ends it with its sentence and code 2.

    When the reader of its output ends, such as ``head``, the command ends silently. Settings that must precede the import of
    PyTorch are made here, and only one of several ranks prints a mistake.
    """

    @interruptible
    @wraps(command)
    def run(*args: Arguments.args, **kwargs: Arguments.kwargs) -> int:
        let_waiting_threads_sleep()
        rank, world_size = likely_place()
        if world_size > 1:
            launchers_above()  # found now, while they run: a rank ends with its launcher
        try:
            code = command(*args, **kwargs)
            if sys.stdout is not None:  # it is None if a launcher has closed it
                sys.stdout.flush()
            return code
        except Mistake as error:
            if world_size > 1:
                return end_with_error(rank, world_size, f"error: {error}")
            sys.stderr.write(f"error: {error}\n")
            return 2
        except BrokenPipeError:
            if not _stop_saying():
                raise
            return 0

    return run


def _stop_saying() -> bool:
    """Discard further output if its reader, such as ``head``, has ended; return whether it has."""
    output = sys.stdout.fileno()
    reader = select.poll()
    reader.register(output, 0)
    if has_gone := any(event & select.POLLERR for _, event in reader.poll(0)):
        os.dup2(os.open(os.devnull, os.O_WRONLY), output)
    return has_gone
