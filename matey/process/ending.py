"""Ends a process after a mistake, before or after PyTorch is imported; one rank prints the message, and all end."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from matey.process.signals import END_READING

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store

# A rank that only lost contact with the others waits before it prints: their error is the cause.
GRACE_SECONDS = 5.0
# A rank that has printed an error stays for this long, so that ranks with the same error learn of it.
LINGER_SECONDS = 1.0
# Name under which the store holds the exit code of a rank that has failed.
FAILED = "matey/failed"
# A process that reads data is given this long to end, since a file system may be slow.
WORKER_SECONDS = 2.0


_store: Store | None = None


def speak_through(store: Store | None) -> None:
    """Set the store that tells whether another rank has printed an error; None before ranks connect and when they part."""
    global _store
    _store = store


def end_with_error(rank: int, world_size: int, text: str) -> int:
    """Print an error once for all ranks and return the exit code 2; if there are other ranks, end the process at once."""
    say_once(rank, world_size, text, code=2)
    if world_size > 1:
        end_process(2)
    end_workers()
    return 2


def say_once(rank: int, world_size: int, text: str, code: int, more: str = "") -> None:
    """Write a text to standard error unless another rank has written it.

    Before ranks are connected, most errors are common to all of them: rank 0 prints, and the launcher ends the others. A rank
    that still runs a while later prints too: rank 0 did not have the error, as when a file or device is missing on one node.

    Args:
        rank: rank of this process.
        world_size: number of ranks.
        text: the text to write.
        code: exit code of this process if the launcher ends it in the meantime.
        more: words to add after the text; they may differ between ranks with the same text.
    """
    is_first = is_first_to_say(text)
    if is_first is None and rank > 0:
        _wait_for_the_launcher(code)
    if is_first is not False:
        say(rank, world_size, f"{text} {more}".rstrip())
    if is_first is not None:
        assert _store is not None, "the ranks have met"
        with suppress(RuntimeError, ValueError):  # rank 0, which keeps the store, has ended
            _store.set(FAILED, str(code))  # ranks that wait for this one learn that it ends
    if world_size > 1:
        # Rank 0 keeps the store, so that the others get an answer only as long as it runs.
        time.sleep(LINGER_SECONDS)


def say(rank: int, world_size: int, text: str) -> None:
    """Write to standard error in one piece, above a bar of progress; of several ranks, each line begins with the rank."""
    before, prefix = ("\n", f"[rank {rank}] ") if world_size > 1 else ("", "")
    lines = "".join(f"{prefix}{line}\n" for line in text.rstrip().splitlines())
    tqdm.write(before + lines, sys.stderr, end="", nolock=True)
    sys.stderr.flush()


def is_first_to_say(text: str) -> bool | None:
    """Whether no other rank has printed the text before; None if the ranks are not connected, or rank 0 has ended."""
    if _store is None:
        return None
    try:
        _store.set_timeout(timedelta(seconds=GRACE_SECONDS))
        return _store.add(f"matey/said/{hashlib.sha256(text.encode()).hexdigest()}", 1) == 1
    except (RuntimeError, ValueError):
        return None


def _wait_for_the_launcher(code: int) -> None:
    """Wait for the launcher to end this process, which then ends silently and with the same code as the others."""
    signal.signal(signal.SIGTERM, lambda number, frame: end_process(code))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
    deadline = time.monotonic() + GRACE_SECONDS
    while time.monotonic() < deadline:
        time.sleep(0.1)  # in short pieces: another thread may take the signal, which does not end a sleep


def end_process(code: int) -> None:
    """End this process, and those that read data for it, without waiting for other ranks; the launcher then ends those."""
    end_workers()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def end_workers(workers: Sequence[BaseProcess] | None = None) -> None:
    """End the processes that read data: each removes its temporary files; one that does not react is killed.

    Args:
        workers: the processes; all children of multiprocessing by default.
    """
    with _ends_unheard():
        workers = [
            each for each in (multiprocessing.active_children() if workers is None else workers) if each.is_alive()
        ]
        deadline = time.monotonic() + WORKER_SECONDS
        while workers and time.monotonic() < deadline:
            for worker in workers:
                assert worker.pid is not None, "those that are active have been started"
                with suppress(ProcessLookupError):
                    os.kill(worker.pid, END_READING)
            # A worker that was about to wait misses the signal, and gets it the next time.
            wait([worker.sentinel for worker in workers], timeout=0.05)
            workers = [worker for worker in workers if worker.is_alive()]
        for worker in workers:
            worker.kill()
            worker.join(WORKER_SECONDS)  # not for ever: a process that hangs in a file system cannot be killed
    with suppress(OSError):  # there is no folder for temporary files
        for folder in Path(tempfile.gettempdir()).glob(f"{worker_files(os.getpid())}*"):  # of those that were killed
            shutil.rmtree(folder, ignore_errors=True)


def worker_files(run: int) -> str:
    """Return the beginning of the names of the temporary folders of processes that read data for a process."""
    return f"pymp-{run}-"


@contextmanager
def _ends_unheard() -> Iterator[None]:
    """Ignore the end of children within the block, since the loader would take the end of a worker for a failure."""
    try:
        before = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    except ValueError:  # this thread is not the main one
        yield
        return
    try:
        yield
    finally:
        if before is not None:  # set by Python, which can set it again
            signal.signal(signal.SIGCHLD, before)
