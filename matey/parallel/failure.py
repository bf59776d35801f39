"""Reports the error by which a rank ends, so that the cause comes first, and ends ranks that wait for others in vain.

While a rank waits in a library's code, Python handles no signal. When one rank has failed, a launcher sends SIGTERM to the
others and kills them half a minute later; the job's exit code would then tell only of the kill. Threads act earlier:

    start                    met                                         end
      | SIGTERM, held back    | another rank's failure, told by the store |
"""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from types import TracebackType

import torch.distributed as dist

from matey.mistakes import one_line
from matey.process.ending import FAILED, GRACE_SECONDS, end_process, say, say_once, speak_through
from matey.process.launchers import launcher_has_gone, launchers_above
from matey.process.signals import die_of_interrupts

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


# A request to leave is held back for so long before the ranks have met: if they meet, the run can still save and leave.
MEETING_SECONDS = 10.0
# The failed rank ends first, so that a launcher names it; the others follow before a launcher kills them.
FOLLOW_SECONDS = 2.0
LOOK_SECONDS = 0.5

_left = threading.Event()


@contextmanager
def meeting(rank: int, world_size: int) -> Iterator[None]:
    """End this process if a signal or its launcher's end asks for it while the ranks have not yet met in the block."""
    met, end = threading.Event(), partial(_end_saying, rank, world_size)
    launchers_above()  # while they are there

    def look() -> None:
        asked = None
        while not met.wait(LOOK_SECONDS):
            if launcher_has_gone():
                end("The launcher has ended while this rank waited for others; it does not any longer.")
            if signal.SIGTERM in signal.sigpending():
                asked = asked or time.monotonic()
                if time.monotonic() > asked + MEETING_SECONDS:
                    # No other rank has said why: only the launcher, or the sender of the signal, knows.
                    end("Asked to end (SIGTERM) while it waited for other ranks, which did not come.")

    if world_size > 1:
        die_of_interrupts()
        threading.Thread(target=look, daemon=True).start()
    try:
        yield
    finally:
        met.set()


def look_out() -> None:
    """From now on, end this process soon after another rank has reported its failure, with that rank's exit code."""
    if dist.get_world_size() == 1:
        return
    _left.clear()
    shared = dist.distributed_c10d._get_default_store()
    speak_through(shared)
    # A separate connection: another thread may be waiting for an answer on the existing one.
    store = shared.clone()  # type: ignore[attr-defined]

    def look() -> None:
        while not _left.wait(LOOK_SECONDS):
            try:
                if not store.check([FAILED]):
                    continue
                code = int(store.get(FAILED))
            except (RuntimeError, ValueError):  # rank 0, which answers, has ended
                return
            if not _left.wait(FOLLOW_SECONDS):
                _end(code)
            return

    threading.Thread(target=look, daemon=True).start()


def end_with_launcher(rank: int, world_size: int) -> None:
    """From now on, end this process soon after its launcher: a restart of the same command would write the same files."""

    def look() -> None:
        looks = 0  # in a row without the launcher: a single look may have failed for another reason
        while not _left.wait(LOOK_SECONDS):
            with suppress(OSError):  # such as too many open files: nothing is known
                looks = looks + 1 if launcher_has_gone() else 0
            if looks == 2:
                _end_saying(rank, world_size, "The launcher has ended, and this rank with it.")

    threading.Thread(target=look, daemon=True).start()


def stop_looking() -> None:
    """Stop watching other ranks and the launcher: they end as this rank does."""
    _left.set()
    speak_through(None)


def _end_saying(rank: int, world_size: int, sentence: str) -> None:
    with suppress(OSError):  # the reader of its output may have gone as well
        say(rank, world_size, sentence)
    _end(1)


def _end(code: int) -> None:
    """End this process, whose main thread may wait for ever; its processes that read data notice by themselves."""
    with suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)
