"""Processes that read data ahead: the signals that they handle, and their end with the process that reads from them."""

from __future__ import annotations

import multiprocessing
import multiprocessing.queues
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from multiprocessing.util import Finalize
from types import FrameType
from typing import Any, NoReturn

from matey.data.trajectories import DataError
from matey.process.ending import end_workers, worker_files
from matey.process.signals import END_READING

# Most bytes of a socket's path, and the bytes that multiprocessing adds to the folder of temporary files.
LONGEST_SOCKET, ADDED = 107, len("/pymp-1234567-12345678/listener-12345678")


def check_temporary_folder() -> None:
    """Refuse a folder of temporary files in which workers cannot make the sockets that hand over tensors.

    Workers would only print a traceback, and the process that waits for the tensors would wait for ever.

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
    """Make a worker ignore the signals that ask its run to leave, since Slurm and terminals send them to every process."""
    for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    # The folder of its sockets is made before it can be asked to end: in between, it would be left behind.
    signal.pthread_sigmask(signal.SIG_BLOCK, [END_READING])
    run = multiprocessing.parent_process()
    assert run is not None and run.pid is not None, "a worker is a process of a run"
    folder = None
    with suppress(OSError):  # is raised again where the folder is needed
        folder = tempfile.mkdtemp(prefix=worker_files(run.pid))
        multiprocessing.current_process()._config["tempdir"] = folder  # type: ignore[attr-defined]
        Finalize(None, shutil.rmtree, (folder,), {"ignore_errors": True}, exitpriority=-100)
    signal.signal(END_READING, partial(_end, folder))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [END_READING])
    # By default a worker drops data that it cannot hand over, and the process that reads from it would wait for ever.
    multiprocessing.queues.Queue._on_queue_feeder_error = staticmethod(_end_by)  # type: ignore[attr-defined]


def end_at_exit(items: Any, before: set[int | None]) -> None:  # noqa: ANN401
    """Make an interpreter that exits while workers still read for it end them, rather than wait for them for ever.

    At exit, multiprocessing asks workers to end by SIGTERM, which ours ignore.

    Args:
        items: iterator over the data that the workers read.
        before: process numbers of the children that existed before the workers.
    """
    workers = [child for child in multiprocessing.active_children() if child.pid not in before]
    # With priority 0 or more, it is called before multiprocessing asks its children to end.
    Finalize(items, end_workers, (workers,), exitpriority=0)


@contextmanager
def ends_of_workers_heard_later() -> Iterator[None]:
    """Delay the error about a worker that dies until the block ends: the loader raises it anywhere, such as in a save."""
    before = signal.getsignal(signal.SIGCHLD)
    if before is None:  # a program around Python handles the signal, so no loader does, and Python cannot restore that
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
    """End this worker, which could not hand over its data; the process that reads from it notices the end."""
    sys.stderr.write(f"A process that reads data cannot hand over what it has read ({error}): is /dev/shm full?\n")
    sys.stderr.flush()
    os._exit(1)


def _end(folder: str | None, number: int, frame: FrameType | None) -> NoReturn:
    """Remove this worker's folder of temporary files and end.

    An exception instead could be raised while a queue holds its lock, and the worker would wait for that lock for ever.
    """
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)
    os._exit(0)
