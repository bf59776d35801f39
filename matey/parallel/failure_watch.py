"""Threads that end a rank which waits for others in vain: one that waits in a library's code hears no signal in Python.

A launcher tells the others by SIGTERM that one rank has failed, and kills them half a minute later, which would be all that a
job's exit code says of it:

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

import torch.distributed as dist

from matey.parallel.signals import die_of_interrupts
from matey.process.ending import FAILED, say, speak_through
from matey.process.launchers import launcher_has_gone, launchers_above

# A request to leave that comes before the ranks have met is kept for so long: then the run could still save and leave.
MEETING_SECONDS = 10.0
# The rank that failed ends first, so that a launcher names that one, and so soon that no launcher kills the others.
FOLLOW_SECONDS = 2.0
LOOK_SECONDS = 0.5

_left = threading.Event()


@contextmanager
def meeting(rank: int, world_size: int) -> Iterator[None]:
    """End this process where the ranks do not meet in the block and it is asked to, by a signal or its launcher's end."""
    met = threading.Event()
    launchers_above()  # while they are there

    def look() -> None:
        asked = None
        while not met.wait(LOOK_SECONDS):
            if launcher_has_gone():
                _say(
                    rank,
                    world_size,
                    "The launcher has ended while this rank waited for others; it does not any longer.",
                )
                _end(1)
            if signal.SIGTERM in signal.sigpending():
                asked = asked or time.monotonic()
                if time.monotonic() > asked + MEETING_SECONDS:
                    # To whom no other rank has said why: the launcher, or who sent the signal, knows.
                    _say(
                        rank, world_size, "Asked to end (SIGTERM) while it waited for other ranks, which did not come."
                    )
                    _end(1)

    if world_size > 1:
        die_of_interrupts()
        threading.Thread(target=look, daemon=True).start()
    try:
        yield
    finally:
        met.set()


def look_out() -> None:
    """From now on, end this process soon after another rank that says it has failed, with its exit code."""
    if dist.get_world_size() == 1:
        return
    _left.clear()
    shared = dist.distributed_c10d._get_default_store()
    speak_through(shared)
    # A connection of its own: another thread may wait for an answer on the one that there is.
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
    """From now on, end this process soon after its launcher: the same command started again would write the same files."""

    def look() -> None:
        looks = 0  # in a row that missed it: one alone may have failed for another reason
        while not _left.wait(LOOK_SECONDS):
            with suppress(OSError):  # as where no more files can be opened: nothing is known
                looks = looks + 1 if launcher_has_gone() else 0
            if looks == 2:
                _say(rank, world_size, "The launcher has ended, and this rank with it.")
                _end(1)

    threading.Thread(target=look, daemon=True).start()


def stop_looking() -> None:
    """Let other ranks and the launcher be: they end as this one does."""
    _left.set()
    speak_through(None)


def _say(rank: int, world_size: int, sentence: str) -> None:
    with suppress(OSError):  # whoever read its words may have gone as well
        say(rank, world_size, sentence)


def _end(code: int) -> None:
    """End this process, whose main thread may wait for ever; those that read data for it notice by themselves."""
    with suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)
