"""The signals by which a scheduler asks a run to leave, how to let held ones through, and how a run ends its readers."""

from __future__ import annotations

import signal

# SIGUSR1 comes ahead of the time limit where the job asked for it (sbatch --signal=USR1@600); SIGTERM comes with
# preemption, `scancel`, the time limit itself, and from a launcher that ends; some 30 seconds later follows SIGKILL.
SIGNALS = (signal.SIGUSR1, signal.SIGTERM)

# Tells a process that reads data for a run to end: it lives on through those above, which a scheduler sends to all processes.
END_READING = signal.SIGQUIT


def release() -> None:
    """Let the signals through, those that came in the meantime as well."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
