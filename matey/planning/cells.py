"""The cells where each rank of a sequence group runs the local operator, and the values it decodes for other ranks' cells."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from matey.model.configuration import MateyConfig
from matey.model.decoding import block_shapes, reach_of, tile_of
from matey.parallel.topology import shares
from matey.planning.samples import Sample
from matey.tokens.boxes import TilesInBoxes
from matey.tokens.coverage import holders, routes, tiles_of, tokens_around
from matey.tokens.layout import TokenLayout, joined, stacked
from matey.tokens.patches import Patch, cover
from matey.tokens.tiles import Frames, Tiles

RANKS_LOOKED_AT = 8
"""Largest number of ranks of a sequence group, far apart, whose messages are counted; on a large grid each takes seconds."""


def values_handed_over(config: MateyConfig, samples: Sequence[Sample], ways: int) -> float:
    """Return the number of values that a rank of ``ways`` hands over in a micro-batch's forward pass, averaged over ranks.

    The average is over at most `RANKS_LOOKED_AT` ranks. Domains count as not periodic.
    """
    shapes, patches = block_shapes(config), config.patches
    tile = tile_of(shapes)
    layout = joined([s.layout for s in samples], [1] * len(samples))  # each sample is a batch of its own
    frames = [_frames(1, s, patches) for s in samples]
    own = shares(layout.num_tokens, ways)
    rank = torch.arange(ways).repeat_interleave(torch.tensor([part.stop - part.start for part in own]))
    reach, values = reach_of(shapes), 0
    for me in ranks_looked_at(ways):
        part = own[me]
        near = tokens_around(layout, part, frames, patches, reach)
        beside, of_beside = layout.select(near), rank[near]
        found = routes(beside, of_beside, holders(beside, of_beside, frames, patches, tile), me, frames, patches, reach)
        values += sum(int((sent[0] == me).sum()) * s.num_fields for sent, s in zip(found, samples, strict=True))
    return values * math.prod(tile) / len(ranks_looked_at(ways))


def ranks_looked_at(ways: int) -> range:
    """Return the ranks of a sequence group whose messages are counted, at most `RANKS_LOOKED_AT`."""
    return range(0, ways, -(-ways // RANKS_LOOKED_AT))


def boxes_of_ranks(config: MateyConfig, samples: Sequence[Sample], own: Sequence[slice]) -> list[list[list[int]]]:
    """Return the boxes where each rank runs the local operator: samples and cells ``z, y, x`` of each box of its tiles.

    Args:
        config: the model's configuration.
        samples: the samples of a micro-batch, all of one system and grid.
        own: the tokens of each rank.
    """
    return [
        [[side.stop - side.start for side in part.box] for part in of_rank]
        for of_rank in tiles_of_ranks(config, samples, own)
    ]


def tiles_of_ranks(config: MateyConfig, samples: Sequence[Sample], own: Sequence[slice]) -> list[list[Tiles]]:
    """Return the tiles in each box of `boxes_of_ranks`."""
    patches = config.patches
    # Leaves are whole finest patches, and there are fewer of these than tiles.
    z, y, x = (math.lcm(*along) for along in zip(tile_of(block_shapes(config))[1:], patches[-1][1:], strict=True))
    tile = (1, z, y, x)
    layout, frames = in_one_batch(samples, patches)
    tiles = (tiles_of(layout, part, frames, patches, tile)[0] for part in own)
    return [[*TilesInBoxes.dealt(of_rank, patches[0]).boxes] for of_rank in tiles]


def in_one_batch(samples: Sequence[Sample], patches: Sequence[Patch]) -> tuple[TokenLayout, list[Frames]]:
    """Return the layout and the frames of a micro-batch whose samples form one batch."""
    frames = _frames(len(samples), samples[0], patches)
    return stacked([s.layout for s in samples]), [frames]


def _frames(num_samples: int, sample: Sample, patches: Sequence[Patch]) -> Frames:
    return Frames(num_samples, sample.window, (False, False, False), cover(sample.window, patches[0])[1:])
