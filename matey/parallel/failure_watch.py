"""Threads that end a rank which waits for others in vain: while it waits in a library's code, Python handles no signal.

When one rank has failed, a launcher sends SIGTERM to the others and kills them half a minute later; the job's exit code would
then tell only of the kill. The threads act earlier:

    start                    met                                         end
      | SIGTERM, held back    | another rank's failure, told by the store |
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial

import torch.distributed as dist

from matey.parallel.signals import die_of_interrupts
from matey.process.ending import FAILED, say, speak_through
from matey.process.launchers import launcher_has_gone, launchers_above

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
