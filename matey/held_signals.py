"""Holds back the signals that ask a run to leave, from the import of this module until the run listens to them.

The imports of a run take seconds, in which such a signal would kill it without a word; Slurm sends one at once where the time
limit is shorter than the notice asked for. A program that listens imports this before anything that takes long.
"""

from __future__ import annotations

import signal

# SIGUSR1 comes ahead of the time limit where the job asked for it (sbatch --signal=USR1@600); SIGTERM comes with
# preemption, `scancel`, the time limit itself, and from a launcher that ends; some 30 seconds later follows SIGKILL.
SIGNALS = (signal.SIGUSR1, signal.SIGTERM)

signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


def release() -> None:
    """Let the signals through, those that came in the meantime as well."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
