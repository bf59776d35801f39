"""Finds the lock that a killed compilation of a part of DeepSpeed left: torch waits for its removal for ever, in silence."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from torch.utils.cpp_extension import get_default_build_root

from matey.process.ending import is_first_to_say

COMPILED = ("cpu_adam", "async_io", "gds", "pin_memory", "quantizer", "fused_adam")
"""The parts that DeepSpeed compiles for a run on first use: Adam for the CPU, offload to a disk, quantized communication."""


@contextmanager
def said_when_locked(patience: float = 60.0) -> Iterator[None]:
    """Report once for all ranks which lock the block waits for, if the lock is older than ``patience`` seconds.

    The compiling process removes the lock when it is done; a killed process leaves it. This process cannot tell the two apart,
    so the run goes on waiting.
    """
    timer = threading.Timer(patience, _say_if_locked, [patience])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def locks() -> Iterator[tuple[Path, float]]:
    """Yield the locks of compilations that run, or were killed, with the seconds since they were taken."""
    root = Path(os.environ.get("TORCH_EXTENSIONS_DIR") or get_default_build_root())
    for lock in root.glob("**/lock"):
        with suppress(FileNotFoundError):  # just now it was removed
            if lock.parent.name in COMPILED:
                yield lock, time.time() - lock.stat().st_mtime


def _say_if_locked(patience: float) -> None:
    for lock, age in locks():
        if age >= patience and is_first_to_say(str(lock)) is not False:
            sys.stderr.write(
                f"Waiting for another process, which has been compiling DeepSpeed's {lock.parent.name} for {age:.0f} s. If "
                f"there is none (it may have been killed), end this run, delete {lock} and start the run again.\n"
            )
            sys.stderr.flush()
