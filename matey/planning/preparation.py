"""Main memory that a process takes to read and prepare a micro-batch of a rank, see `matey.model.prepare`."""

from __future__ import annotations

import math

from matey.planning.memory import field_bytes
from matey.planning.workload import Workload, seen_around
from matey.tokens.sums import AT_ONCE

TAKING_MEANS = 1.5  # frames of all fields for means of the local operator: 1.4 in the plane, 1.7 in space, measured
LAYOUT_BYTES = 40  # of a token
SUMMING = 1.75  # times the fields whose sums over patches are taken together, measured


def preparation_bytes(workload: Workload, micro_batch: int, ways: int) -> float:
    """Return the most bytes that are held at once: what is read, what becomes of it, and what comes and goes meanwhile.

    Args:
        workload: the samples and the network.
        micro_batch: number of samples.
        ways: number of ranks that share them, each of which prepares its part.
    """
    most = 0.0
    for sample in workload.samples:
        num_frames, *grid = sample.window
        frame = 4 * sample.num_inputs * math.prod(grid)
        made = field_bytes(workload, sample) + 4 * seen_around(workload, sample, grid)
        made += LAYOUT_BYTES * sample.num_tokens + TAKING_MEANS * frame
        history, of_field = num_frames * frame, num_frames * frame / sample.num_inputs
        refining = SUMMING * min(history, max(of_field, 4 * AT_ONCE)) + history * (len(workload.config.patches) > 1)
        normalising = 2 * history  # without the mean, and divided by the deviation
        read = sample.num_bytes / (1 if sample.num_given else ways)  # all, where fields are given
        most = max(most, read + max(refining, normalising, made) / ways)
    return micro_batch * most
