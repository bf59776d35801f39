"""What each rank of a sequence group decodes: its own cells, and the blocks of others that reach into them."""

from __future__ import annotations

from collections.abc import Sequence

from matey.model.blending import BlockGrid
from matey.model.decoding import PatchDecoder
from matey.parallel.topology import shares
from matey.scaling.samples import Sample
from matey.tokens.coverage import Frames, parts_of, tokens_to_decode
from matey.tokens.patches import Patch


def decoded_by_ranks(
    sample: Sample, decoders: Sequence[PatchDecoder], patches: Sequence[Patch], ways: int
) -> list[list[tuple[int, int]]]:
    """Return per rank and level how many tokens and how many blocks of cells it decodes; domains count as not periodic."""
    layout, frames = sample.layout, [Frames(1, sample.window, (False, False, False))]
    reach = [max(margins) for margins in zip(*(decoder.margin for decoder in decoders), strict=True)]
    counts = []
    for own in shares(layout.num_tokens, ways):
        (part,) = parts_of(layout, own, frames, patches)
        wanted = layout.select(tokens_to_decode(layout, own, frames, patches, reach))
        of_levels = []
        for level, (patch, decoder) in enumerate(zip(patches, decoders, strict=True)):
            rows = wanted.row[wanted.level == level] // (sample.window[0] // patch[0])
            blocks = BlockGrid.over(part, decoder.cells[1:], decoder.margin).to_decode(patch, rows)[0]
            of_levels.append((len(rows), len(blocks)))
        counts.append(of_levels)
    return counts
