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

RowsOf = Callable[[slice], Sequence[Tensor]]
"""From a rank's slice of the packed list, numbers of rows per group."""


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

    def hand_over(self, values: Sequence[Tensor], num_tokens: int, reached: RowsOf, held: RowsOf) -> list[Tensor]:
        """Add up what the ranks have of each row, at the ranks that hold it.

        Args:
            values: per group ``(m, ...)``, what this rank has of the rows that it reaches.
            num_tokens: length of the packed list.
            reached: from a rank's slice of it, per group the ``m`` rows that the rank has something of, ascending.
            held: from a rank's slice, per group the ``k`` rows that it holds, ascending; some rank reaches each of them.

        Returns:
            Per group ``(k, ...)``, the sums of the rows that this rank holds.
        """
        everything = slice(0, num_tokens)
        rows = zip(values, reached(everything), held(everything), strict=True)
        return [
            have if len(mine) == len(have) else have.index_select(0, torch.searchsorted(all_there, mine))
            for have, all_there, mine in rows
        ]

    def reduce(self, partial: Tensor) -> Tensor:
        """Sum over the ranks that share the samples; each rank's gradient is that of the sum."""
        return partial
