"""What a rank says when it ends by an error, so that the cause comes first and the job ends soon after."""

from __future__ import annotations

import faulthandler
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
# In the messages of gloo's and NCCL's errors that another rank caused.
LOST_MARKS = ("gloo/transport", "Connection closed by peer", "remote process exited", "communicator was aborted")


def name_failures(rank: int, world_size: int) -> None:
    """From now on, end this process at once by an uncaught error, with its rank in front of each line.

    The interpreter's own way out waits for threads of NCCL and for MPI_Finalize, both of which wait for the other ranks.
    """
    # NCCL's watchdog aborts a process whose collective hangs: this prints where its threads were.
    faulthandler.enable()
    if world_size == 1:
        return

    def report(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        text = lost_contact(error, trace)
        if text is None:
            text = "".join(traceback.format_exception(kind, error, trace))
        elif "parallel.timeout" not in text:
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


def end_with_error(rank: int, world_size: int, text: str, is_common: bool) -> int:
    """Say what went wrong and end, where there are other ranks at once; return the exit code 2 where there are none.

    Args:
        rank: of this process.
        world_size: number of ranks.
        text: the sentence.
        is_common: whether every rank should meet the error: rank 0 then speaks, and the launcher ends the others. One that it
            has not ended a while later speaks, since rank 0 has not met the error: on its node a file or a device is missing.
    """
    if rank > 0 and is_common:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        time.sleep(GRACE_SECONDS)
    say(rank, world_size, text)
    if world_size > 1:
        end_process(2)
    return 2


def end_process(code: int) -> None:
    """End this process without waiting for other ranks; its launcher then ends theirs."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


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
