"""What the ranks of a sequence group decode in tiles of each other, and so send."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch

from matey.model.configuration import MateyConfig
from matey.model.decoding import reach_of, tile_of
from matey.parallel.topology import shares
from matey.scaling.operations import decoders_of
from matey.scaling.samples import Sample
from matey.tokens.coverage import Frames, routes
from matey.tokens.layout import joined
from matey.tokens.patches import cover


def values_handed_over(config: MateyConfig, samples: Sequence[Sample], ways: int) -> float:
    """Return the values that a rank of ``ways`` hands over in a forward pass of a micro-batch, on average over the ranks.

    Domains count as not periodic.
    """
    decoders, patches = decoders_of(config), config.patches
    tile = tile_of(decoders)
    layout = joined(
        [replace(s.layout, group=torch.full_like(s.layout.group, number)) for number, s in enumerate(samples)]
    )
    frames = [Frames(1, s.window, (False, False, False), cover(s.window, patches[0])[1:]) for s in samples]
    lengths = torch.tensor([own.stop - own.start for own in shares(layout.num_tokens, ways)])
    rank = torch.arange(ways).repeat_interleave(lengths)
    found = routes(layout, rank, frames, patches, reach_of(decoders), tile)
    return (
        sum(of_sample.shape[1] * s.num_fields for of_sample, s in zip(found, samples, strict=True))
        * math.prod(tile)
        / ways
    )
