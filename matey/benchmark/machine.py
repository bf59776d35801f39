"""Measures the machine: clock, memory and matrix-product rate, for measurements of speed."""

from __future__ import annotations

import ctypes
import time
from pathlib import Path

import torch

from matey.process.resources import M_MMAP_THRESHOLD, M_TRIM_THRESHOLD, set_options

MATRIX = 1024  # rows and columns of the matrices whose product is timed


def now(device: str) -> float:
    """Return the seconds of a clock, once the device has finished its work."""
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def matmul_rate(device: str, dtype: torch.dtype) -> float:
    """Return the operations per second of one product of square matrices."""
    a, b = torch.ones(2, MATRIX, MATRIX, dtype=dtype, device=device)
    start = now(device)
    torch.mm(a, b)
    return 2 * MATRIX**3 / (now(device) - start)


def return_freed_memory(at_once: bool) -> None:
    """Choose whether the C library returns every freed tensor to the system, or keeps its memory for reuse, which is faster.

    Kept memory counts as resident, so a peak would be that of the library's heap with its holes.
    """
    set_options({M_MMAP_THRESHOLD: 2**16 if at_once else 2**25, M_TRIM_THRESHOLD: 2**16 if at_once else 2**26})


def memory(device: str, *, peak: bool = False) -> int:
    """Return the bytes in use, or with ``peak`` the most since the last call without it."""
    if device == "cuda":
        if peak:
            return torch.cuda.max_memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    if not peak:
        ctypes.CDLL(None).malloc_trim(0)
        # This resets Linux's high-water mark of resident memory (proc(5), clear_refs).
        Path("/proc/self/clear_refs").write_text("5")
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":" in line)
    return int(status["VmHWM" if peak else "VmRSS"].split()[0]) * 1024
