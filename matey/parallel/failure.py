"""Reports the error by which a rank ends, so that the cause comes first and the job ends soon after."""

from __future__ import annotations

import faulthandler
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from types import TracebackType

import torch.distributed as dist

from matey.mistakes import one_line
from matey.process.ending import GRACE_SECONDS, end_process, say_once

PACKAGE = Path(__file__).resolve().parents[1]
# Texts in gloo's and NCCL's errors that another rank caused.
LOST_MARKS = ("gloo/transport", "Connection closed by peer", "remote process exited", "communicator was aborted")

WORKER_ENDED = "A process that reads data (data.workers) has ended, perhaps killed for want of memory"


def name_failures(rank: int, world_size: int) -> None:
    """From now on, end this process at once on an uncaught error, with its rank in front of each line.

    The interpreter's normal exit waits for threads of NCCL and for MPI_Finalize, which both wait for the other ranks. It also
    waits for the processes that read data, which ignore the signals that it sends them.
    """
    # NCCL's watchdog aborts a process whose collective hangs: this prints where its threads were.
    faulthandler.enable()

    def report(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        text = lost_contact(error, trace)
        if "DataLoader worker" in str(error):
            text = f"{WORKER_ENDED} ({one_line(error)}). Go on from the last checkpoint with --resume."
            say_once(rank, world_size, text, code=1)
        elif text is None:
            say_once(rank, world_size, "".join(traceback.format_exception(kind, error, trace)), code=1)
        else:
            if "parallel.timeout" not in text:
                time.sleep(GRACE_SECONDS)
            say_once(rank, world_size, text, code=1, more=str(error).strip())  # ranks that wait say the same sentence
        end_process(1)

    sys.excepthook = report


@contextmanager
def during(what: str) -> Iterator[None]:
    """Add the name of the activity to every error that is raised inside."""
    try:
        yield
    except BaseException as error:
        error.add_note(f"It was in {what}.")
        raise


def set_timeouts(timeout: timedelta) -> None:
    """Give the groups that DeepSpeed makes the run's timeout: DeepSpeed has no argument for it."""
    # torch gives a new group its default, not the timeout of the group of all ranks.
    dist.distributed_c10d.default_pg_timeout = timeout
    dist.distributed_c10d.default_pg_nccl_timeout = timeout  # type: ignore[attr-defined]  # read there, where it is imported to


def lost_contact(error: BaseException, trace: TracebackType | None) -> str | None:
    """Return a sentence with the place if the error comes from a collective, None if it is this rank's own error."""
    message = str(error).strip()
    is_late = "timed out" in message.lower() and (isinstance(error, dist.DistError) or "gloo/transport" in message)
    if not is_late and not any(mark in message for mark in LOST_MARKS):
        return None
    timeout = dist.distributed_c10d.default_pg_timeout.total_seconds()
    if "timed out connecting" in message or "connectFullMesh" in message:
        what = "Cannot connect to another rank: it has ended, or the network between them lets no connection through."
    elif is_late:
        what = (
            f"A collective did not finish within {timeout:g} s (parallel.timeout): a rank that prints nothing hangs, or is "
            "slower than that."
        )
    else:
        what = "Lost another rank, whose own error stands above; one without an error was killed, perhaps for want of memory."
    frames = [frame for frame in traceback.extract_tb(trace) if PACKAGE in Path(frame.filename).resolve().parents]
    place = " > ".join(
        f"{frame.name} (matey/{Path(frame.filename).resolve().relative_to(PACKAGE)}:{frame.lineno})" for frame in frames
    )
    return " ".join([what, *getattr(error, "__notes__", ()), f"Here: {place}."])
