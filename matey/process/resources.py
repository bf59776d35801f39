"""How threads of PyTorch wait, which it reads at its import, and how the C library keeps the memory of freed tensors."""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Mapping


def let_waiting_threads_sleep() -> None:
    """Let threads that wait go to sleep soon, unless the user has decided how they wait.

    Long spinning, libgomp's default, makes a step several times as long if other programs use the cores too
    (docs/planning.md).
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")


# Constants of glibc's malloc.h.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3

LARGEST_KEPT = 32 << 20
"""Bytes of the largest block that glibc can keep; larger ones are the system's own mappings."""


def keep_freed_memory() -> None:
    """Keep blocks of up to `LARGEST_KEPT` bytes when they are freed, and the end of the heap with them.

    By default glibc returns freed blocks to the system, which hands them out again page by page, filled with zeros. That takes
    a tenth of a small model's step, in which the same tensors come again and again. If the user has set such an option in the
    environment (MALLOC_TRIM_THRESHOLD_ and its like), it stays. Without glibc nothing happens.
    """
    if platform.libc_ver()[0] != "glibc" or any(name.startswith("MALLOC_") for name in os.environ):
        return
    set_options({M_MMAP_THRESHOLD: LARGEST_KEPT, M_TRIM_THRESHOLD: 2**31 - 1, M_TOP_PAD: LARGEST_KEPT})


def set_options(options: Mapping[int, int]) -> None:
    """Give glibc's allocator values for some of its options."""
    libc = ctypes.CDLL(None)
    for option, value in options.items():
        libc.mallopt(option, value)
