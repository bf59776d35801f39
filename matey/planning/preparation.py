"""Predicts the main memory that a process needs to read and prepare a rank's micro-batch, see `matey.model.prepare`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

from matey.data.boxes import enclosing_cells
from matey.model.configuration import MateyConfig
from matey.model.decoding import block_shapes
from matey.model.moving import AT_ONCE, NUM_RECENT, recent_of
from matey.model.shared_fields import around_tiles
from matey.parallel.topology import shares
from matey.planning.cells import in_one_batch, ranks_looked_at, tiles_of_ranks
from matey.planning.machine import Machine
from matey.planning.memory import LAYOUT_BYTES, ahead_bytes, field_bytes, map_bytes
from matey.planning.samples import Chunk, Sample, WindowSize, one_batch
from matey.planning.workload import Workload, seen_around
from matey.tokens.bricks import in_bricks
from matey.tokens.by_brick import width_of_criteria
from matey.tokens.parts import Around, Sharing
from matey.tokens.patches import Patch
from matey.tokens.sums import AT_ONCE as SUMMED_AT_ONCE
from matey.tokens.tiles import Frames, Tiles

TAKING_MEANS = 1.5  # frames of all fields for means of the local operator: 1.4 in the plane, 1.7 in space, measured
SUMMING = 1.75  # times the fields that are summed over patches together, measured
COPYING = 0.5  # times the values copied at once, measured
AROUND = 2.5  # times the last frames around own cells while windows are cut out of them, measured
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
        (each.window, each.num_fields, each.num_given, each.given_frames, each.chunk, each.is_scattered): each
        for each in sorted(workload.samples, key=lambda sample: sample.num_tokens)
    }
    return max(
        micro_batch * _of_whole(workload, sample, ways)
        if ways == 1
        else max(_of_part(workload, sample, micro_batch, ways, unrolled))
        for sample in largest.values()
    )


def pinned_bytes(workload: Workload, micro_batch: int, ways: int, machine: Machine) -> float:
    """Return the bytes of pinned memory from which a rank's micro-batches are copied to its GPU ahead of the step.

    PyTorch allocates a power of two and keeps it for the next micro-batch.
    """
    num_bytes = ahead_bytes(workload, micro_batch, ways, machine)
    return 2 ** math.ceil(math.log2(num_bytes)) if num_bytes else 0.0


def waiting_bytes(workload: Workload, micro_batch: int, ways: int, workers: int) -> float:
    """Return the most bytes of a rank's micro-batches that its workers have read ahead and that still wait for a step.

    Args:
        workload: the samples and the network.
        micro_batch: number of samples.
        ways: number of ranks that share the samples; if several, workers only read parts, and the ranks prepare them.
        workers: number of worker processes of the rank.
    """
    return READ_AHEAD * workers * micro_batch * _most_waiting(workload, micro_batch, ways)


@cache
def _most_waiting(workload: Workload, micro_batch: int, ways: int) -> float:
    """Return the bytes of a sample that waits for its step, of the sample that takes most."""
    most = 0.0
    for sample in workload.samples:
        part = _largest_part(sample.window, sample.chunk, workload.config.patches[0], micro_batch, ways)
        most = max(most, _made(workload, sample) if ways == 1 else sample.num_bytes * part)
    return most


def _of_whole(workload: Workload, sample: Sample, ways: int) -> float:
    """Return the bytes that a process holds for a sample that it reads whole."""
    num_frames, *grid = sample.window
    frame = 4 * sample.num_inputs * math.prod(grid)
    history, of_field = num_frames * frame, num_frames * frame / sample.num_inputs
    refining = SUMMING * min(history, max(of_field, 4 * SUMMED_AT_ONCE)) + history * (len(workload.config.patches) > 1)
    normalising = 2 * history  # one copy without the mean, one divided by the deviation
    made = _made(workload, sample) + TAKING_MEANS * frame
    return sample.num_bytes + max(refining, normalising, made / ways)


def _made(workload: Workload, sample: Sample) -> float:
    """Return the bytes of a prepared sample: the network's inputs, and plans."""
    seen = 4 * seen_around(workload, sample, sample.window[1:])
    return field_bytes(workload, sample) + seen + LAYOUT_BYTES * sample.num_tokens


def _of_part(workload: Workload, sample: Sample, num_samples: int, ways: int, unrolled: bool) -> list[float]:
    """Return the bytes on some of the ranks that share samples and prepare a part each, see `matey.model.moving`."""
    config, num_frames = workload.config, sample.window[0]
    brick, samples = config.patches[0], [sample] * num_samples
    layout, frames = in_one_batch(samples, config.patches)
    total = math.prod(frames[0].grid_of(brick))
    of_token = torch.empty(layout.num_tokens, dtype=torch.long)
    for level in range(len(config.patches)):
        ((index, number, *_),) = in_bricks(layout, frames, config.patches, level)
        of_token[index] = number
    cells = 4 * math.prod(brick[1:])
    frame = sample.num_inputs * cells  # values of a brick, given fields included
    as_read = ((num_frames + 1) * sample.num_fields + sample.given_frames * sample.num_given) * cells
    whole, halo = (num_frames + 1) * frame, min(NUM_RECENT, num_frames) * frame
    plans = num_samples * map_bytes(config, sample) / ways + LAYOUT_BYTES * layout.num_tokens
    about = one_batch(sample.window, sample.chunk, num_samples)
    sharing = Sharing.share_out([about], brick, ways)
    is_sent = sample.is_scattered and any(bound % (total // num_samples) for bound in sharing.bounds[0])
    own = shares(layout.num_tokens, ways)
    looked_at = sorted({*ranks_looked_at(ways), _fullest(sharing, ways)})
    # Values of each brick that all ranks receive, and the rank of each token.
    told = 3 * (sample.num_fields + sample.num_given) + (len(config.patches) > 1) * width_of_criteria(config.patches)
    known = 4 * total * told + 8 * layout.num_tokens
    found = []
    for rank, boxes in zip(looked_at, tiles_of_ranks(config, samples, [own[at] for at in looked_at]), strict=True):
        first, end = sharing.bounds[0][rank : rank + 2]
        read = torch.arange(first, end)
        enclosing = enclosing_cells(sharing.boxes([about], rank)[0], sample.chunk) / math.prod(brick[1:])
        needed, (recent, num_cells) = of_token[own[rank]].unique(), _recent(config, sample, frames[0], boxes)
        slabs = num_cells[~torch.isin(recent, torch.cat([read, needed]))].sum()
        came = int((~torch.isin(needed, read)).sum()) * whole + int(slabs) * halo / math.prod(brick[1:])
        reading = (len(read) + max(len(read), enclosing)) * num_frames * frame
        moving = plans + len(read) * as_read + came + len(needed) * whole + len(recent) * halo
        cutting = plans + len(needed) * whole + AROUND * len(recent) * halo
        # What is prepared to be rolled out has no targets.
        rolling = (cutting + len(read) * as_read - len(needed) * frame) * unrolled
        turning = 3 * len(read) * as_read * is_sent  # what is sent, what comes and its places
        found.append(max(turning, reading, moving, cutting, rolling) + known + COPYING * 4 * AT_ONCE)
    return found


@cache
def _largest_part(window: WindowSize, chunk: Chunk, brick: Patch, num_samples: int, ways: int) -> float:
    """Return the share of a micro-batch that the rank reads which reads most."""
    sharing = Sharing.share_out([one_batch(window, chunk, num_samples)], brick, ways)
    return sharing.number_of(0, _fullest(sharing, ways)) / math.prod(sharing.grids[0])


def _fullest(sharing: Sharing, ways: int) -> int:
    """Return the rank that reads most."""
    return max(range(ways), key=lambda rank: sharing.number_of(0, rank))


def _recent(config: MateyConfig, sample: Sample, frames: Frames, boxes: Sequence[Tiles]) -> tuple[Tensor, Tensor]:
    """Return the bricks around the boxes of a rank's tiles whose last frames it sees, and the number of cells seen in each."""
    brick = config.patches[0]
    about = one_batch(sample.window, sample.chunk, 1)
    halo = [max(along) for along in zip(*(shape.halo for shape in block_shapes(config)), strict=True)]
    regions = [Around.of_cells([_widened(tiles.box, halo)], about, brick, [1, 1, 1]) for tiles in boxes]
    if config.local:
        regions += [around_tiles(tiles, about, config) for tiles in boxes]
    recent, cells = recent_of(regions, frames.grid_of(brick), brick)
    return recent, (cells[..., 1] - cells[..., 0]).clamp_min(0).prod(dim=1)


def _widened(box: Sequence[slice], halo: Sequence[int]) -> tuple[slice, list[int], list[int]]:
    """Return the samples of a box, its first cell and its end along ``z, y, x``, with a halo, as the decoders' windows have."""
    samples, *sides = box
    ends = zip(sides, halo, strict=True)
    begin, end = zip(*((side.start - reach, side.stop + reach) for side, reach in ends), strict=True)
    return samples, [*begin], [*end]
