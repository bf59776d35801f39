"""Tells how much data a rank reads, and whether reading keeps up with the training steps."""

from __future__ import annotations

import math
from functools import cache

from matey.data.reading import unpacked_cells
from matey.planning.workload import Workload, parts_of_sample

MB = 1e6


@cache
def read_bytes(workload: Workload, num_samples: int, ways: int) -> float:
    """Return the bytes of float32 that a rank reads of a micro-batch of average samples, compressed chunks counted whole.

    Args:
        workload: the samples and the network.
        num_samples: number of samples of the micro-batch.
        ways: number of ranks that read a part each, with the cells around it; of these, the one that unpacks most counts.
    """
    total = 0
    for sample in workload.samples:
        if ways == 1:
            total += num_samples * sample.num_bytes
            continue
        boxes = (part.cuts[0].to_read() for part in parts_of_sample(workload, sample, num_samples, ways))
        total += sample.bytes_of_cell * max(unpacked_cells(each, sample.chunk, sample.window[1:]) for each in boxes)
    return total / len(workload.samples)


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
