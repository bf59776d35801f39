"""The operations that sequence parallelism replaces; here in their one-process form."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from matey.model.attention import segment_attention
from matey.tokens.segments import segment

Plan = Any
"""What a seam prepares once per batch for all attentions with the same key."""


class Seam:
    """One process: it holds all tokens. `matey.parallel` overrides the methods for a group of ranks.

    Args:
        backend: backend of `segment_attention`.

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

    def hand_over(
        self,
        values: Sequence[Tensor],
        reached: Sequence[Tensor],
        held: Sequence[Tensor],
        num_tokens: int,
        routes: Callable[[Tensor], Sequence[Tensor]],
    ) -> list[Tensor]:
        """Add up what the ranks have of each row, at the ranks that hold it.

        Args:
            values: tensors ``(m, ...)``, one per batch: this rank's part of the rows that it contributes to.
            reached: the numbers ``(m,)`` of those rows, ascending, one tensor per batch.
            held: the numbers ``(k,)`` of the rows that this rank holds, ascending and among ``reached``, one tensor per
                batch.
            num_tokens: length of the packed list.
            routes: function of the rank of each token ``(n,)`` of the packed list; it returns for each batch the rows
                that change ranks, see `matey.tokens.coverage.routes`.

        Returns:
            One tensor ``(k, ...)`` per batch, the sums of the rows that this rank holds.
        """
        rows = zip(values, reached, held, strict=True)
        return [
            have if len(mine) == len(have) else have.index_select(0, torch.searchsorted(there, mine))
            for have, there, mine in rows
        ]

    def reduce(self, partial: Tensor) -> Tensor:
        """Sum over the ranks that share the samples; each rank's gradient is that of the sum."""
        return partial
