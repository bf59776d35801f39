"""Predicts the main memory that a process needs to read and prepare a rank's micro-batch, see `matey.model.prepare`."""

from __future__ import annotations

import math
from functools import cache

from matey.data.reading import unpacked_cells
from matey.planning.machine import Machine
from matey.planning.memory import ahead_bytes, held_bytes, plan_bytes_of_token, ready_bytes
from matey.planning.samples import Sample
from matey.planning.workload import Part, Workload, num_cells, parts_of_sample
from matey.tokens.normalisation import AT_ONCE as SUMMED_AT_ONCE

SUMMING = 1.75  # times the fields that are summed over patches together, measured
PLANNING = 2.0  # times the plans of tokens while they are made, assumed
READ_AHEAD = 2  # micro-batches that a worker of PyTorch's loader reads ahead


@cache
def preparation_bytes(workload: Workload, micro_batch: int, ways: int, *, unrolled: bool = False) -> float:
    """Return the peak of memory in bytes: values read, values prepared from them, and temporaries.

    Args:
        workload: the samples and the network.
        micro_batch: number of samples.
        ways: number of ranks that share the samples; each prepares its part.
        unrolled: whether histories are rolled out first, see `matey.train.unroll`; a rank's part then stays in memory while
            the ranks prepare the next frame.
    """
    # Of samples that differ in their tokens alone, the one with most.
    largest = {
        (each.window, each.num_fields, each.num_given, each.given_frames, each.periodic): each
        for each in sorted(workload.samples, key=lambda sample: sample.num_tokens)
    }
    return max(
        _of_part(workload, sample, part, ways, unrolled and ways > 1)
        for sample in largest.values()
        for part in parts_of_sample(workload, sample, micro_batch, ways)
    )


def pinned_bytes(workload: Workload, micro_batch: int, ways: int, machine: Machine) -> float:
    """Return the bytes of pinned memory from which a rank's micro-batches are copied to its GPU ahead of the step.

    PyTorch allocates a power of two and keeps it for the next micro-batch.
    """
    num_bytes = ahead_bytes(workload, micro_batch, ways, machine)
    return 2 ** math.ceil(math.log2(num_bytes)) if num_bytes else 0.0


@cache
def waiting_bytes(workload: Workload, micro_batch: int, ways: int, workers: int) -> float:
    """Return the most bytes of a rank's micro-batches that its workers have read ahead and that still wait for a step.

    Args:
        workload: the samples and the network.
        micro_batch: number of samples.
        ways: number of ranks that share the samples; if several, workers only read parts, and the ranks prepare them.
        workers: number of worker processes of the rank.
    """
    if ways == 1:
        return READ_AHEAD * workers * ready_bytes(workload, micro_batch, ways)
    return (
        READ_AHEAD
        * workers
        * max(
            _read(sample, part)
            for sample in workload.samples
            for part in parts_of_sample(workload, sample, micro_batch, ways)
        )
    )


def _of_part(workload: Workload, sample: Sample, part: Part, ways: int, unrolled: bool) -> float:
    """Return the bytes on a rank that prepares its part of a micro-batch of copies of a sample."""
    config, (cut,), num_frames = workload.config, part.cuts, sample.window[0]
    number = part.num_samples
    read, wide = _read(sample, part), 4 * number * sample.num_inputs * num_cells(cut.spans)
    own = 4 * number * num_frames * math.prod(side.stop - side.start for side in cut.box.cells)
    history = num_frames * wide
    plans = PLANNING * part.layout.num_tokens * plan_bytes_of_token(config)
    # A few fields of the box are summed over patches at once; for refinement, the box is normalised beside them.
    summing = SUMMING * min(sample.num_inputs * own, max(own, 4 * SUMMED_AT_ONCE))
    refining = summing + sample.num_inputs * own * (len(config.patches) > 1)
    normalising = plans + 2 * history  # one copy without the mean, one divided by the deviation
    # Inputs of cells are made beside the normalised history; the history of a part is then copied out of it.
    held = held_bytes(config, sample, part)
    whole = held - sample.num_inputs * own + history
    making = plans + (whole if ways == 1 else whole + sample.num_inputs * own)
    reading = read * (ways > 1)  # pieces are brought together by sample
    return read * (1 + unrolled) + max(reading, refining, normalising, making)


def _read(sample: Sample, part: Part) -> float:
    """Return the bytes that a rank reads of a micro-batch of copies of a sample."""
    return part.num_samples * sample.bytes_of_cell * num_cells(part.cuts[0].spans)


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
