"""The part of a micro-batch that a rank of a sequence group holds: its boxes of cells, their tokens, and what it receives."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from matey.model.boxes import Cut, reach_of
from matey.model.configuration import MateyConfig
from matey.model.prepare import TokenPlaces
from matey.parallel.topology import shares
from matey.planning.samples import Sample, one_batch
from matey.tokens.decomposition import Frames, Span
from matey.tokens.layout import TokenLayout, joined, stacked
from matey.tokens.neighbours import neighbours_of
from matey.tokens.patches import cover

RANKS_LOOKED_AT = 8
"""Largest number of ranks of a sequence group, far apart, whose parts are counted; on a large grid each takes seconds."""


@dataclass(frozen=True)
class Part:
    """The part of a micro-batch that one rank holds, and the number of tokens that come to it from other ranks.

    Attributes:
        cuts: cells of each batch.
        layout: the layout of all tokens.
        in_boxes: ``(k,)``, the tokens in its boxes.
        entering: number of tokens of its even share that lie in other ranks' boxes.
        near: number of tokens around those of its share.
        leaving: number of tokens that it needs for the cells of its boxes.
    """

    cuts: tuple[Cut, ...]
    layout: TokenLayout
    in_boxes: Tensor
    entering: int
    near: int
    leaving: int

    @property
    def num_samples(self) -> int:
        """Number of samples of its box in the first batch."""
        samples = self.cuts[0].box.samples
        return samples.stop - samples.start


def ranks_looked_at(ways: int) -> range:
    """Return the ranks of a sequence group whose parts are counted, at most `RANKS_LOOKED_AT`."""
    return range(0, ways, -(-ways // RANKS_LOOKED_AT))


def parts_of(config: MateyConfig, samples: Sequence[Sample], ways: int) -> list[Part]:
    """Return the parts of a micro-batch that `ranks_looked_at` hold; samples of a system and a size are one batch."""
    batches: dict[object, list[Sample]] = {}
    for sample in samples:
        batches.setdefault((sample.system, sample.window, sample.num_fields), []).append(sample)
    layout = joined([stacked([s.layout for s in each]) for each in batches.values()], [*map(len, batches.values())])
    abouts, found = [one_batch(each[0], len(each)) for each in batches.values()], []
    frames = [
        Frames(about.number, about.window, about.periodic, cover(about.window, config.patches[0])[1:])
        for about in abouts
    ]
    places, own = TokenPlaces(layout, frames, config.patches), shares(layout.num_tokens, ways)
    divided = [Cut.of_rank(about, config, 0, ways).decomposition for about in abouts]
    box_of = places.in_coarsest([each.rank_of_coarsest() for each in divided])
    mixed = neighbours_of(layout, frames, config.patches) if config.mixes_neighbours and ways > 1 else None
    for rank in ranks_looked_at(ways):
        cuts = tuple(Cut.of_rank(about, config, rank, ways) for about in abouts)
        share = torch.arange(own[rank].start, own[rank].stop)
        needed = in_boxes = (box_of == rank).nonzero(as_tuple=True)[0]
        needed = places.given_to(cuts, reach_of(config)) if config.has_cells else needed[layout.is_last[needed]]
        seen = share if mixed is None else mixed.seen_by(share)[1]
        around, leaving = (
            int(((each < own[rank].start) | (each >= own[rank].stop)).sum()) * config.has_tokens
            for each in (seen, needed)
        )
        entering = int((box_of[share] != rank).sum()) * config.has_tokens
        found.append(Part(cuts, layout, in_boxes, entering, around, leaving))
    return found


def num_cells(spans: Sequence[Span]) -> int:
    """Return the number of cells in some spans along ``z, y, x``."""
    return math.prod(span.cells.stop - span.cells.start for span in spans)
