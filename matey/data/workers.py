"""Processes that read data ahead: which signals they hear, and how they end with the process that reads from them."""

from __future__ import annotations

import multiprocessing
import multiprocessing.queues
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.util import Finalize
from types import FrameType
from typing import Any, NoReturn

from matey.data.trajectories import DataError
from matey.process.ending import end_workers
from matey.process.leave_signals import END_READING

# Bytes of a socket's path at most, and those that multiprocessing adds to the folder of temporary files.
LONGEST_SOCKET, ADDED = 107, len("/pymp-12345678/listener-12345678")


def check_temporary_folder() -> None:
    """Refuse a folder of temporary files in which workers cannot make the sockets that tensors are handed over by.

    They would say so in a traceback, and who waits for the tensors would wait for ever.

    Raises:
        DataError: the path is too long.
    """
    folder = tempfile.gettempdir()
    if len(os.fsencode(folder)) + ADDED > LONGEST_SOCKET:
        raise DataError(
            f"{folder}, in which temporary files are made, has a path too long for the sockets of processes that read data: "
            f"expected at most {LONGEST_SOCKET - ADDED} bytes; set TMPDIR to a shorter one, or data.workers to 0."
        )


def leave_signals_to_the_run(worker: int) -> None:
    """Let a worker live on through the signals that ask its run to leave: Slurm and a terminal send them to every process."""
    for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(END_READING, _end)
    sys.unraisablehook = _say_unless_ending
    Finalize(None, signal.signal, (END_READING, signal.SIG_IGN), exitpriority=sys.maxsize)  # while it cleans up
    # What a worker cannot hand over it would drop, and who reads from it would wait for that for ever.
    multiprocessing.queues.Queue._on_queue_feeder_error = staticmethod(_end_by)  # type: ignore[attr-defined]


def end_at_exit(items: Any, before: set[int | None]) -> None:  # noqa: ANN401
    """See that an interpreter which ends while workers still read for it ends them, rather than wait for them for ever.

    On its way out, multiprocessing asks workers to end by SIGTERM, which ours do not hear.

    Args:
        items: iterator over what the workers read.
        before: process numbers of the children that there were before.
    """
    workers = [child for child in multiprocessing.active_children() if child.pid not in before]
    # Of the priority 0 or more: called before multiprocessing asks its children to end.
    Finalize(items, end_workers, (workers,), exitpriority=0)


@contextmanager
def ends_of_workers_heard_later() -> Iterator[None]:
    """Within the block, a worker that dies raises no error: the loader would raise it wherever the program is, as in a save."""
    before = signal.getsignal(signal.SIGCHLD)
    if before is None:  # a program around Python hears the signal, so no loader does; and Python cannot put that back
        yield
        return
    heard: list[FrameType | None] = []
    signal.signal(signal.SIGCHLD, lambda number, frame: heard.append(frame))
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, before)
    if heard and callable(before):
        before(signal.SIGCHLD, heard[0])


def _end_by(error: Exception, item: object) -> NoReturn:
    """End this worker, which could not hand over what it has read; whoever reads from it hears of the end."""
    sys.stderr.write(f"A process that reads data cannot hand over what it has read ({error}): is /dev/shm full?\n")
    sys.stderr.flush()
    os._exit(1)


def _end(number: int, frame: FrameType | None) -> NoReturn:
    sys.exit()


def _say_unless_ending(dropped: sys.UnraisableHookArgs) -> None:
    """Print what a callback drops, but for an end of this worker that fell into it: it is asked to end again."""
    if dropped.exc_type is not SystemExit:
        sys.__unraisablehook__(dropped)
