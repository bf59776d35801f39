"""How a command begins and ends."""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec

from matey.mistakes import Mistake
from matey.process.ending import end_process, end_with_error
from matey.process.launchers import launchers_above
from matey.process.likely_place import likely_place
from matey.process.waiting_threads import let_waiting_threads_sleep

Arguments = ParamSpec("Arguments")

INTERRUPTED = 130  # as shells have it for SIGINT


def interruptible(command: Callable[Arguments, int]) -> Callable[Arguments, int]:
    """Decorate a command, which returns its exit code: ctrl-C ends it with a word, which one of several ranks says."""

    @wraps(command)
    def run(*args: Arguments.args, **kwargs: Arguments.kwargs) -> int:
        try:
            return command(*args, **kwargs)
        except KeyboardInterrupt:
            rank, world_size = likely_place()
            if rank == 0:
                sys.stderr.write("Interrupted.\n")
            if world_size > 1:  # whose interpreter might wait for others
                end_process(INTERRUPTED)
            return INTERRUPTED

    return run


def entry_point(command: Callable[Arguments, int]) -> Callable[Arguments, int]:
    """Decorate a command as `interruptible` does; a mistake ends it with its sentence and code 2.

    A reader of its output that has had enough, such as ``head``, ends it without a word.
    What has to be set before PyTorch is imported is set here; several ranks say a mistake once.
    """

    @interruptible
    @wraps(command)
    def run(*args: Arguments.args, **kwargs: Arguments.kwargs) -> int:
        let_waiting_threads_sleep()
        rank, world_size = likely_place()
        if world_size > 1:
            launchers_above()  # while they are there: a rank ends with its launcher
        try:
            code = command(*args, **kwargs)
            if sys.stdout is not None:  # as it is where a launcher has closed it
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
    """Send output nowhere if its reader has gone, such as ``head``, which has had enough; return whether it had."""
    output = sys.stdout.fileno()
    reader = select.poll()
    reader.register(output, 0)
    if has_gone := any(event & select.POLLERR for _, event in reader.poll(0)):
        os.dup2(os.open(os.devnull, os.O_WRONLY), output)
    return has_gone
