"""Sets how threads of PyTorch wait for each other, at the start of every command, since PyTorch reads this at its import."""

from __future__ import annotations

import os


def let_waiting_threads_sleep() -> None:
    """Let threads that wait go to sleep soon, unless the user has decided how they wait.

    Long spinning, libgomp's default, makes a step several times as long if other programs use the cores too
    (docs/planning.md).
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")
