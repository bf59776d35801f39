"""The three operations that sequence parallelism replaces; here in their one-process form."""

from __future__ import annotations

from torch import Tensor

from matey.model.attention import segment_attention
from matey.tokens.layout import TokenLayout
from matey.tokens.segments import Segmentation


class Seam:
    """One process: it holds all tokens. `matey.parallel` overrides the three for a group of ranks.

    Args:
        backend: of `segment_attention`.
    """

    def __init__(self, backend: str = "auto") -> None:
        self.backend = backend

    def shard(self, layout: TokenLayout) -> TokenLayout:
        """Return the layout of the tokens that this rank embeds, processes and decodes."""
        return layout

    def attend(self, q: Tensor, k: Tensor, v: Tensor, segmentation: Segmentation) -> Tensor:
        """Attend within the segments of the whole token list: this rank's ``(n, h, d)`` in and out."""
        return segment_attention(q, k, v, segmentation, self.backend)

    def reduce(self, partial: Tensor) -> Tensor:
        """Sum over the ranks that share the samples; each rank's gradient is that of the sum."""
        return partial
