"""The signals by which a scheduler asks a run to leave, their release, and the signal that ends a run's reading processes."""

from __future__ import annotations

import signal

# SIGUSR1 comes ahead of the time limit where the job asked for it (sbatch --signal=USR1@600); SIGTERM comes with
# preemption, `scancel`, the time limit itself, and from a launcher that ends; some 30 seconds later follows SIGKILL.
SIGNALS = (signal.SIGUSR1, signal.SIGTERM)

# Ends a process that reads data for a run. It ignores the signals above, which a scheduler sends to all processes.
END_READING = signal.SIGQUIT


def release() -> None:
    """Unblock the signals; those that came in the meantime are delivered now."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
