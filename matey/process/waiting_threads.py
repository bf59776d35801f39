"""How threads of PyTorch wait for each other: read as PyTorch is imported, and so set at the start of every command."""

from __future__ import annotations

import os


def let_waiting_threads_sleep() -> None:
    """Let threads that wait go to sleep soon, unless the user has decided how they wait.

    Spinning on, as is libgomp's default, makes a step several times as long where other programs use the cores too
    (docs/performance.md).
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")
