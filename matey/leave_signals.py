"""The signals by which a scheduler asks a run to leave, and how to let those through that `matey.held_signals` holds back."""

from __future__ import annotations

import signal

# SIGUSR1 comes ahead of the time limit where the job asked for it (sbatch --signal=USR1@600); SIGTERM comes with
# preemption, `scancel`, the time limit itself, and from a launcher that ends; some 30 seconds later follows SIGKILL.
SIGNALS = (signal.SIGUSR1, signal.SIGTERM)


def release() -> None:
    """Let the signals through, those that came in the meantime as well."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
