"""Blocks the signals that ask a run to leave, until the run can handle them.

The imports of a run take seconds, in which such a signal would kill it silently; Slurm sends one at once if the time limit is
shorter than the requested notice.
"""

from __future__ import annotations

import signal
from functools import cache

from matey.process.lasting_output import make_output_last
from matey.process.launchers import launchers_above
from matey.process.leave_signals import SIGNALS
from matey.process.waiting_threads import let_waiting_threads_sleep


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
