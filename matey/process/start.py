"""Prepares a run's process before its slow imports: signals are held back, and output may lose its reader.

The imports take seconds, in which a signal would kill the run silently; Slurm sends one at once if the time limit is shorter
than the requested notice. A pipe into ``head`` or ``tee`` ends, a terminal closes, the disk of a log is full; daemons and some
launchers start processes with closed descriptors. The messages of a run are in its folder as well.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from functools import cache
from typing import TextIO

from matey.process.launchers import launchers_above
from matey.process.resources import let_waiting_threads_sleep
from matey.process.signals import SIGNALS


@cache
def hold() -> None:
    """Block the signals, find the launcher while it runs, let output outlive its reader, and let waiting threads sleep.

    A program that handles the signals calls this once, before slow imports such as PyTorch. No other program may call it:
    processes that it starts would inherit the blocked signals.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    launchers_above()
    make_output_last()
    let_waiting_threads_sleep()


class LastingOutput:
    """A text stream that discards its output once the reader has gone; all else is passed on to the stream."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> object:
        """Return the stream's attribute of that name."""
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write the text, or drop it; return its length."""
        try:
            self._stream.write(text)
        except OSError:
            self._let_go()
        return len(text)

    def flush(self) -> None:
        """Write the buffered text, or drop it."""
        try:
            self._stream.flush()
        except OSError:
            self._let_go()

    def _let_go(self) -> None:
        # The descriptor leads nowhere, so that neither buffered text nor other code that writes to it fails.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)


def make_output_last() -> None:
    """Put such streams in the place of standard output and error; closed descriptors among 0 to 2 lead nowhere from now on.

    It must be called before this process opens any file, which would get the number of a closed descriptor.
    """
    while True:
        nowhere = os.open(os.devnull, os.O_RDWR)
        if nowhere > 2:
            break
        os.set_inheritable(nowhere, True)  # as standard streams are
    os.close(nowhere)
    for name, number in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name) or open(number, "w", encoding="utf-8", closefd=False)
        with suppress(OSError):  # a descriptor that was a file and is a pipe now has no position
            stream.reconfigure(errors="backslashreplace")  # names of files may hold letters that the encoding lacks
        setattr(sys, name, LastingOutput(stream))
