"""Holds back the signals that ask a run to leave, from the import of this module until the run listens to them.

The imports of a run take seconds, in which such a signal would kill it without a word; Slurm sends one at once where the time
limit is shorter than the notice asked for. A program that listens imports this before anything that takes long. Nothing else
does: processes that it starts would inherit signals that are held back. Its output lasts from then on as well.
"""

from __future__ import annotations

import signal

import matey.launchers  # noqa: F401 (which is to see the launcher while it is there)
from matey.lasting_output import make_output_last
from matey.leave_signals import SIGNALS

signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
make_output_last()
