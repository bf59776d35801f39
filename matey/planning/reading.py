"""Tells how much data a rank reads, and whether reading keeps up with the training steps."""

from __future__ import annotations

import math
from functools import cache

from matey.data.boxes import unpacked_cells
from matey.planning.samples import Chunk, WindowSize, one_batch
from matey.planning.workload import Workload
from matey.tokens.parts import Sharing
from matey.tokens.patches import Patch

MB = 1e6


def read_bytes(workload: Workload, num_samples: int, ways: int) -> float:
    """Return the bytes of float32 that a rank reads of a micro-batch of average samples, compressed chunks counted whole.

    Args:
        workload: the samples and the network.
        num_samples: number of samples of the micro-batch.
        ways: number of ranks that read a part each.
    """
    samples, brick = workload.samples, workload.config.patches[0]
    of_samples = (each.num_bytes * _share(each.window, each.chunk, brick, num_samples, ways) for each in samples)
    return num_samples * sum(of_samples) / len(samples)


@cache
def _share(window: WindowSize, chunk: Chunk, brick: Patch, num_samples: int, ways: int) -> float:
    """Return the share of a micro-batch that a rank reads; with chunks, that of the rank that unpacks most."""
    if chunk is None or ways == 1:
        return 1 / ways
    about = one_batch(window, chunk, num_samples)
    sharing = Sharing.share_out([about], brick, ways)
    of_ranks = (unpacked_cells(sharing.boxes([about], rank)[0], chunk, window[1:]) for rank in range(ways))
    return max(of_ranks) / (num_samples * math.prod(window[1:]))


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
