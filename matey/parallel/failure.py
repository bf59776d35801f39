"""What a rank says when it ends by an error, so that the cause comes first and the job ends soon after."""

from __future__ import annotations

import faulthandler
import hashlib
import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from types import TracebackType

import torch.distributed as dist

PACKAGE = Path(__file__).resolve().parents[1]
# A rank that only lost the others waits before it speaks: theirs is the cause.
GRACE_SECONDS = 5.0
# For this long a rank that has spoken stays, so that others with the same words hear of it.
LINGER_SECONDS = 1.0
# In the messages of gloo's and NCCL's errors that another rank caused.
LOST_MARKS = ("gloo/transport", "Connection closed by peer", "remote process exited", "communicator was aborted")


def name_failures(rank: int, world_size: int) -> None:
    """From now on, end this process at once by an uncaught error, with its rank in front of each line.

    The interpreter's own way out waits for threads of NCCL and for MPI_Finalize, both of which wait for the other ranks, and
    for the processes that read data, which live on through the signals that it sends them.
    """
    # NCCL's watchdog aborts a process whose collective hangs: this prints where its threads were.
    faulthandler.enable()

    def report(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        text = lost_contact(error, trace)
        if text is None:
            say_once(rank, world_size, "".join(traceback.format_exception(kind, error, trace)), code=1)
        else:
            if "parallel.timeout" not in text:
                time.sleep(GRACE_SECONDS)
            say(rank, world_size, text)
        end_process(1)

    sys.excepthook = report


@contextmanager
def during(what: str) -> Iterator[None]:
    """Name in every error from inside what was being done."""
    try:
        yield
    except BaseException as error:
        error.add_note(f"It was in {what}.")
        raise


def say(rank: int, world_size: int, text: str) -> None:
    """Write to the standard error in one piece, each line with the rank in front where there are several."""
    prefix = f"[rank {rank}] " if world_size > 1 else ""
    sys.stderr.write("\n" + "".join(f"{prefix}{line}\n" for line in text.rstrip().splitlines()))
    sys.stderr.flush()


def end_with_error(rank: int, world_size: int, text: str) -> int:
    """Say what went wrong, once for all ranks, and end, where there are other ranks at once; return the exit code 2."""
    say_once(rank, world_size, text, code=2)
    if world_size > 1:
        end_process(2)
    _end_workers()
    return 2


def say_once(rank: int, world_size: int, text: str, code: int) -> None:
    """Write to the standard error what no other rank has written yet.

    Before the ranks have met, most errors are common to all of them: rank 0 speaks, and the launcher ends the others. One that
    it has not ended a while later speaks, since rank 0 has not met the error: on its node a file or a device is missing.

    Args:
        rank: rank of this process.
        world_size: number of ranks.
        text: the text to write.
        code: exit code of this process if the launcher ends it in the meantime.
    """
    is_first = _is_first_to_say(text)
    if is_first is None and rank > 0:
        _wait_for_the_launcher(code)
    if is_first is not False:
        say(rank, world_size, text)
    if world_size > 1:
        # Rank 0 keeps the note, and with it the answer to the others, for as long as it is there.
        time.sleep(LINGER_SECONDS)


def _is_first_to_say(text: str) -> bool | None:
    """Whether no other rank has said it before; None where that cannot be found out: they have not met, or rank 0 has ended."""
    if not dist.is_initialized():
        return None
    try:
        store = dist.distributed_c10d._get_default_store()
        store.set_timeout(timedelta(seconds=GRACE_SECONDS))
        return store.add(f"matey/said/{hashlib.sha256(text.encode()).hexdigest()}", 1) == 1
    except (RuntimeError, ValueError):
        return None


def _wait_for_the_launcher(code: int) -> None:
    """Wait for the launcher to end this process, which then ends without a word and with the same code as the others."""
    signal.signal(signal.SIGTERM, lambda number, frame: end_process(code))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
    deadline = time.monotonic() + GRACE_SECONDS
    while time.monotonic() < deadline:
        time.sleep(0.1)  # in short pieces: another thread may take the signal, which does not end a sleep


def end_process(code: int) -> None:
    """End this process, and those that read data for it, without waiting for other ranks; its launcher then ends theirs."""
    _end_workers()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _end_workers() -> None:
    for worker in multiprocessing.active_children():
        worker.kill()


def set_timeouts(timeout: timedelta) -> None:
    """Give the groups that DeepSpeed makes the run's timeout: it has no argument for theirs."""
    # torch gives a new group its default, not the timeout of the group of all ranks.
    dist.distributed_c10d.default_pg_timeout = timeout
    dist.distributed_c10d.default_pg_nccl_timeout = timeout


def lost_contact(error: BaseException, trace: TracebackType | None) -> str | None:
    """Return a sentence with the place if the error is that of a collective, None if it is this rank's own."""
    message = str(error).strip()
    is_late = "timed out" in message.lower() and (isinstance(error, dist.DistError) or "gloo/transport" in message)
    if not is_late and not any(mark in message for mark in LOST_MARKS):
        return None
    timeout = dist.distributed_c10d.default_pg_timeout.total_seconds()
    what = (
        f"A collective did not finish within {timeout:g} s (parallel.timeout): a rank that prints nothing hangs, or is "
        "slower than that."
        if is_late
        else "Lost another rank, whose own error stands above; one without an error was killed, perhaps for want of memory."
    )
    frames = [frame for frame in traceback.extract_tb(trace) if PACKAGE in Path(frame.filename).resolve().parents]
    place = " > ".join(
        f"{frame.name} (matey/{Path(frame.filename).resolve().relative_to(PACKAGE)}:{frame.lineno})" for frame in frames
    )
    return " ".join([what, *getattr(error, "__notes__", ()), f"Here: {place}. {message}"])
