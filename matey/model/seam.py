"""The operations that sequence parallelism replaces; here in their one-process form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from matey.model.attention import segment_attention
from matey.tokens.segments import segment

Plan = Any
"""What a seam prepares once per batch for all attentions with the same key."""


class Seam:
    """One process: it holds all tokens. `matey.parallel` overrides the methods for a group of ranks.

    Args:
        backend: of `segment_attention`.

    Attributes:
        size: number of ranks that share the samples.
    """

    size = 1

    def __init__(self, backend: str = "auto") -> None:
        self.backend = backend

    def shard(self, num_tokens: int) -> slice:
        """Return the slice of the packed list that this rank embeds, processes and decodes."""
        return slice(0, num_tokens)

    def plan(self, key: Tensor) -> Plan:
        """Prepare attention among tokens of the whole list with equal keys ``(n,)``."""
        return segment(key)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, plan: Plan) -> Tensor:
        """Attend within the segments of the whole token list: this rank's ``(n, h, d)`` in and out."""
        return segment_attention(q, k, v, plan, self.backend)

    def of_recomputed_blocks(self) -> Seam:
        """Return the seam for blocks that are computed again in the backward pass, so that nothing else needs to be."""
        return self

    def fetch(self, tokens: Tensor, num_tokens: int, wanted: Callable[[slice], Tensor]) -> Tensor:
        """Return features ``(w, e)`` of the tokens that this rank wants, wherever they are.

        Args:
            tokens: ``(m, e)`` of this rank.
            num_tokens: length of the whole list.
            wanted: from a rank's slice, the numbers of the tokens that it wants in the whole list, ascending.
        """
        return tokens[wanted(slice(0, num_tokens))]

    def reduce(self, partial: Tensor) -> Tensor:
        """Sum over the ranks that share the samples; each rank's gradient is that of the sum."""
        return partial
