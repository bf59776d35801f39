"""Holds back the signals that ask a run to leave, until the run listens to them.

The imports of a run take seconds, in which such a signal would kill it without a word; Slurm sends one at once where the time
limit is shorter than the notice asked for.
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
    """Hold back the signals, find the launcher while it is there, and let output outlive its reader; once is enough.

    A program that listens calls this before it imports what takes long, PyTorch for one, whose waiting threads are let sleep as
    well. Nothing else does: processes that it starts would inherit signals that are held back.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    launchers_above()
    make_output_last()
    let_waiting_threads_sleep()
