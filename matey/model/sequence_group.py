"""The operations that sequence parallelism replaces; here in their one-process form.

A `RankGroup` plans the division of work by arithmetic: it needs no other rank and may run anywhere, ahead of a step. The
`SequenceGroup` computes as planned, in step with the other ranks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from matey.model.attention import segment_attention
from matey.model.block_plan import BlockPlan, in_order
from matey.tokens.segments import segment

Plan = Any
"""Preparation, once per batch, of all attentions with the same key."""


class Exchange(Protocol):
    """Exchange of the fields that the ranks that share samples have read, on the host, ahead of a step."""

    def gather(self, own: Tensor, counts: Sequence[int]) -> Tensor:
        """Return the numbers ``(sum of counts,)`` of all ranks, in rank order; ``own`` are those of this rank."""

    def swap(self, values: Tensor, send: Sequence[int], receive: Sequence[int]) -> Tensor:
        """Send the first ``send[0]`` values to the first rank, and so on; return those received, in the order of the ranks."""


class Alone:
    """The exchange of one process, which has read all fields."""

    def gather(self, own: Tensor, counts: Sequence[int]) -> Tensor:
        """Return its own numbers."""
        return own

    def swap(self, values: Tensor, send: Sequence[int], receive: Sequence[int]) -> Tensor:
        """Return its own values."""
        return values


class RankGroup:
    """Division of work among ranks that share samples: here one process does all; `matey.parallel` has that for several."""

    @property
    def size(self) -> int:
        """Number of ranks."""
        return 1

    @property
    def place(self) -> int:
        """Place of this rank in the group."""
        return 0

    def shard(self, num_tokens: int) -> slice:
        """Return the slice of the packed list that this rank embeds, processes and decodes."""
        return slice(0, num_tokens)

    def rank_of_tokens(self, num_tokens: int) -> Tensor:
        """Return the place of the rank that embeds, processes and decodes each token of the packed list, ``(n,)``."""
        return torch.zeros(num_tokens, dtype=torch.long)

    def plan(self, key: Tensor) -> Plan:
        """Plan attention among tokens of the whole list with equal keys ``(n,)``; the same on all ranks of the group."""
        return segment(key)

    def plan_block(self, keys: Sequence[Tensor]) -> BlockPlan:
        """Plan the attentions of a block, one for each key, and the orders of the tokens in them."""
        return in_order([self.plan(key) for key in keys])


class SequenceGroup:
    """The ranks that share the samples; here one process, which holds all tokens. `matey.parallel` overrides it for several.

    Args:
        backend: backend of `segment_attention`.

    Attributes:
        ranks: the group of ranks that share the samples.
        exchange: exchange of the fields; each rank has read a part of them.
    """

    exchange: Exchange = Alone()

    def __init__(self, backend: str = "auto", ranks: RankGroup | None = None) -> None:
        self.backend, self.ranks = backend, ranks or RankGroup()

    @property
    def size(self) -> int:
        """Number of ranks that share the samples."""
        return self.ranks.size

    def attend(self, q: Tensor, k: Tensor, v: Tensor, plan: Plan) -> Tensor:
        """Attend within the segments of the whole token list; inputs and result ``(n, h, d)`` are of this rank's tokens."""
        return segment_attention(q, k, v, plan, self.backend)

    def of_recomputed_blocks(self) -> SequenceGroup:
        """Return the group for blocks with activation recomputation; it computes nothing again by itself."""
        return self

    def exchange_tokens(self, tokens: Tensor, route: Any) -> Tensor:  # noqa: ANN401
        """Return the tokens ``(k, e)`` that a `matey.model.route.Route` leads to this rank, from its own ``(n, e)``."""
        return tokens if route is None else F.embedding(route.order, tokens)

    def reduce(self, partial: Tensor) -> Tensor:
        """Sum over the ranks that share the samples; each rank's gradient is the gradient of the sum."""
        return partial
