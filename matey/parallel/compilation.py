"""Removes the lock that a killed compilation of a part of DeepSpeed left: torch waits for its removal for ever, in silence."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from torch.utils.cpp_extension import get_default_build_root

from matey.parallel.collectives import barrier
from matey.parallel.placement import is_first_of_node
from matey.process.ending import is_first_to_say

COMPILED = ("cpu_adam", "async_io", "gds", "pin_memory", "quantizer", "fused_adam")
"""The parts that DeepSpeed compiles for a run on first use: Adam for the CPU, offload to a disk, quantized communication."""

QUIET = 300.0  # seconds without a new file after which a compilation counts as killed: a single file takes a minute


def wait_for_compilations(quiet: float = QUIET) -> None:
    """Wait until no other process compiles, and remove the locks of those that were killed. All ranks must call.

    The compiling process removes its lock when it is done; a killed one leaves it, perhaps on another node.

    Args:
        quiet: seconds without a new file after which a compilation counts as killed.
    """
    for lock, age in locks() if is_first_of_node() else ():
        if age < quiet and is_first_to_say(str(lock)) is not False:
            sys.stderr.write(
                f"Another process seems to compile DeepSpeed's {lock.parent.name}; waiting until it removes {lock}, or has "
                f"written nothing beside it for {quiet:g} s.\n"
            )
            sys.stderr.flush()
        with suppress(FileNotFoundError):  # it has been removed
            while _age(lock) < quiet:
                time.sleep(0.5)
            lock.unlink()
    barrier()


def locks() -> Iterator[tuple[Path, float]]:
    """Yield the locks of compilations that run, or were killed, with the seconds since something was written beside them."""
    root = Path(os.environ.get("TORCH_EXTENSIONS_DIR") or get_default_build_root())
    for lock in root.glob("**/lock"):
        with suppress(FileNotFoundError):  # just now it was removed
            if lock.parent.name in COMPILED:
                yield lock, _age(lock)


def _age(lock: Path) -> float:
    lock.stat()
    return time.time() - max(path.stat().st_mtime for path in lock.parent.iterdir())
