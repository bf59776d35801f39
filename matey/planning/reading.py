"""Tells whether reading data keeps up with the training steps."""

from __future__ import annotations

import math

MB = 1e6


def reading_text(needed: float, rate: float | None, workers: int, ranks: int, source: str) -> str:
    """Return a line on the rate at which a rank reads, and whether steps wait for it.

    Args:
        needed: bytes of float32 per second that are needed so that no step waits.
        rate: bytes per second that one process reads; None if unknown.
        workers: number of processes of a rank that read ahead; with 0, the rank reads by itself.
        ranks: number of ranks that read.
        source: the source of the rate.
    """
    text = f"reading, MB a second    {needed / MB:10.1f}   of a rank, {ranks * needed / 1e9:,.1f} GB of all"
    if rate is None:
        return f"{text}, so that no step waits; what one process reads is not known (--read_rate)"
    readers, can_read = f"{workers} workers" if workers else "one process", rate * max(1, workers)
    text = f"{text}; {readers} can read {can_read / MB:.1f} ({source})"
    if needed <= can_read:
        return f"{text}: enough"
    times, wanted = needed / can_read, math.ceil(needed / rate)
    return f"{text}: reading is the bottleneck, a step takes {times:.1f} times as long; set data.workers to {wanted}"
