"""Sequence parallelism: a sequence group of several ranks that share samples, exact for any number of heads, tokens and ranks.

Every rank holds an equal slice of the packed tokens. Attention has two plans, and each segmentation takes the one that moves
fewer bytes. The first exchanges tokens for heads (Ulysses, arXiv:2309.14509), and divides queries among ranks where there are
too few heads. The second moves tokens so that each segment is whole on one rank.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from copy import copy
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from matey.model.attention import segment_attention
from matey.model.matey import MateyModel
from matey.model.sequence_group import BlockPlan, RankGroup, SequenceGroup
from matey.parallel.collectives import rank, world_size
from matey.parallel.exchange import exchange_rows, gather_rows, sum_over_group
from matey.parallel.groups import make_groups
from matey.parallel.homes import homes_of_segments
from matey.parallel.host_exchange import HostExchange
from matey.parallel.regather import not_kept
from matey.parallel.topology import Topology, shares
from matey.tokens.segments import Segmentation, segment


@dataclass(frozen=True)
class HeadsPlan:
    """Plan to exchange tokens for heads inside the head group, and to gather keys and values across the query group.

    Attributes:
        segmentation: the segments of the head group's queries and of all keys.
        counts: number of tokens of each rank of the head group.
        gathered: number of tokens of each head group, in the order of the query group.
        num_moved: number of values that leave a rank in a whole forward pass, divided by the embedding width.
    """

    segmentation: Segmentation
    counts: tuple[int, ...]
    gathered: tuple[int, ...]
    num_moved: float


@dataclass(frozen=True)
class TokensPlan:
    """Plan to move tokens so that each segment is whole on one rank.

    Attributes:
        segmentation: the segments of the tokens that come to this rank.
        order: ``(m,)``, this rank's tokens in the order of the ranks that they go to.
        inverse: ``(m,)``, the permutation that undoes ``order``.
        send: number of tokens that go to each rank.
        receive: number of tokens that come from each rank.
        num_moved: number of values moved, counted as in `HeadsPlan`.
    """

    segmentation: Segmentation
    order: Tensor
    inverse: Tensor
    send: tuple[int, ...]
    receive: tuple[int, ...]
    num_moved: float


@dataclass(frozen=True)
class SequenceRanks(RankGroup):
    """Division of work in a sequence group: arithmetic on the layout of all tokens, which is the same on all its ranks."""

    topology: Topology

    @property
    def size(self) -> int:
        """Number of ranks."""
        return self.topology.sequence_parallel_size

    @property
    def place(self) -> int:
        """Place of this rank in the group."""
        return self.topology.sequence_rank

    def shard(self, num_tokens: int) -> slice:
        """Return the slice of the packed list that this rank embeds, processes and decodes."""
        return shares(num_tokens, self.size)[self.topology.sequence_rank]

    def rank_of_tokens(self, num_tokens: int) -> Tensor:
        """Return the place in the group of the rank that has each token of the packed list, ``(n,)``."""
        lengths = torch.tensor([own.stop - own.start for own in shares(num_tokens, self.size)])
        return torch.arange(self.size).repeat_interleave(lengths)

    def plan(self, key: Tensor) -> HeadsPlan | TokensPlan:
        """Plan attention among tokens with equal keys ``(n,)``; the same on all ranks of the group."""
        return cheaper_tokens_plan(key, self.topology) or plan_heads(key, self.topology)

    def plan_block(self, keys: Sequence[Tensor]) -> BlockPlan:
        """Plan the attentions of a block; tokens stay in the order of the packed list, and exchanges bring them into others."""
        return BlockPlan.in_place([self.plan(key) for key in keys])


class DistributedSequenceGroup(SequenceGroup):
    """The sequence group of several ranks.

    Args:
        topology: the place of this rank. All ranks must construct this class together: it makes process groups.
        backend: backend of `segment_attention`.

    Attributes:
        exchange: exchange of the fields; each rank has read a part of them.
    """

    def __init__(self, topology: Topology, backend: str = "auto") -> None:
        super().__init__(backend, SequenceRanks(topology))
        self.topology = topology
        self._gathers_again = True
        self.exchange = HostExchange(topology.sequence_groups())
        groups = make_groups(topology)
        self.group, self._heads, self._queries = groups.sequence, groups.heads, groups.queries

    def attend(self, q: Tensor, k: Tensor, v: Tensor, plan: HeadsPlan | TokensPlan) -> Tensor:
        """Attend within the segments of the whole token list; inputs and result ``(n, h, d)`` are of this rank's tokens."""
        if isinstance(plan, HeadsPlan):
            return self._attend_by_heads(q, k, v, plan)
        return self._attend_by_tokens(q, k, v, plan)

    def of_recomputed_blocks(self) -> SequenceGroup:
        """Return a group that keeps gathered keys and values: the whole block is recomputed in the backward pass anyway."""
        sequence_group = copy(self)
        sequence_group._gathers_again = False
        return sequence_group

    def exchange_tokens(self, tokens: Tensor, route: Any) -> Tensor:  # noqa: ANN401
        """Return the tokens ``(k, e)`` that a route leads to this rank, from its own ``(n, e)``."""
        if route is None:
            return tokens
        received = exchange_rows(tokens[route.send], route.num_sent, route.num_received, self.group)
        return F.embedding(route.order, torch.cat([tokens, received]))

    def reduce(self, partial: Tensor) -> Tensor:
        """Sum over the ranks that share the samples; each rank's gradient is the gradient of the sum."""
        return sum_over_group(partial, self.group)

    def _attend_by_heads(self, q: Tensor, k: Tensor, v: Tensor, plan: HeadsPlan) -> Tensor:
        ways, own, heads = self.topology.head_ways, len(q), self._heads
        if ways > 1:
            rows = torch.stack([rearrange(x, "n (w h) d -> w n h d", w=ways) for x in (q, k, v)], dim=2).flatten(0, 1)
            q, k, v = exchange_rows(rows, [own] * ways, plan.counts, heads).unbind(1)
        attend = self._attend_to_all if self.topology.query_ways > 1 else self._attend_here
        attended = attend(q, k, v, plan)
        if ways > 1:
            attended = exchange_rows(attended, plan.counts, [own] * ways, heads)
            attended = rearrange(attended, "(w n) h d -> n (w h) d", w=ways)
        return attended

    def _attend_here(self, q: Tensor, k: Tensor, v: Tensor, plan: HeadsPlan | TokensPlan) -> Tensor:
        """Attend among tokens that are all on this rank: those of the head group, or of whole segments."""
        return segment_attention(q, k, v, plan.segmentation, self.backend)

    def _attend_to_all(self, q: Tensor, k: Tensor, v: Tensor, plan: HeadsPlan) -> Tensor:
        """Attend from the head group's tokens to those of all ranks; the gathered keys and values are not kept."""
        segmentation = plan.segmentation
        # The keys then lie segment by segment.
        keys, packed = segmentation.keys, replace(segmentation, keys=None)

        def gather() -> Tensor:
            gathered = gather_rows(torch.stack([k, v], dim=1), plan.gathered, self._queries)
            return gathered if keys is None or not segmentation.runs else gathered[keys]

        gathered = gather()
        with not_kept(gathered, gather) if self._gathers_again else nullcontext(_as_it_is) as asked_for:
            if not segmentation.runs:
                # A rank without queries must still take part in the exchanges of the backward pass.
                return asked_for(q + 0 * gathered.sum())
            all_keys, all_values = gathered.unbind(1)
            return asked_for(segment_attention(q, all_keys, all_values, packed, self.backend))

    def _attend_by_tokens(self, q: Tensor, k: Tensor, v: Tensor, plan: TokensPlan) -> Tensor:
        if not plan.num_moved:
            return self._attend_here(q, k, v, plan)
        rows = torch.stack([q, k, v], dim=1)[plan.order]
        q, k, v = exchange_rows(rows, plan.send, plan.receive, self.group).unbind(1)
        attended = self._attend_here(q, k, v, plan)
        return exchange_rows(attended, plan.receive, plan.send, self.group)[plan.inverse]


def _as_it_is(values: Tensor) -> Tensor:
    return values


def share_samples(model: MateyModel, size: int | None = None) -> None:
    """Let groups of ``size`` ranks, by default one group of all, share the samples of a model; all ranks must call."""
    topology = Topology(rank(), world_size(), size or world_size(), model.config.num_heads)
    backend, is_alone = model.sequence_group.backend, topology.sequence_parallel_size == 1
    model.sequence_group = SequenceGroup(backend) if is_alone else DistributedSequenceGroup(topology, backend)


def heads_plan_moves(num_tokens: int, topology: Topology) -> float:
    """Return the number of values that leave the ranks with `HeadsPlan`: summed over the group, over the embedding width."""
    ways, queries = topology.head_ways, topology.query_ways
    exchanged = 4 * num_tokens * (ways - 1) / ways
    gathered = 2 * num_tokens * (queries - 1)
    return exchanged + gathered


def cheaper_tokens_plan(key: Tensor, topology: Topology) -> TokensPlan | None:
    """Plan attention with each segment whole on one rank; None if `HeadsPlan` moves no more, or the load is uneven."""
    tokens = plan_tokens(key, topology)
    return tokens if tokens is not None and tokens.num_moved < heads_plan_moves(len(key), topology) else None


def plan_heads(key: Tensor, topology: Topology) -> HeadsPlan:
    """Plan attention by heads and queries."""
    num_tokens = len(key)
    slices = shares(num_tokens, topology.sequence_parallel_size)
    ways = topology.head_ways
    own_group = topology.sequence_rank // ways
    groups = [slices[first : first + ways] for first in range(0, len(slices), ways)]
    own = slice(groups[own_group][0].start, groups[own_group][-1].stop)
    return HeadsPlan(
        segmentation=segment(key, own),
        counts=tuple(part.stop - part.start for part in groups[own_group]),
        gathered=tuple(group[-1].stop - group[0].start for group in groups),
        num_moved=heads_plan_moves(num_tokens, topology),
    )


def plan_tokens(key: Tensor, topology: Topology) -> TokensPlan | None:
    """Plan attention with each segment whole on one rank; None if the load cannot be balanced."""
    ways, me = topology.sequence_parallel_size, topology.sequence_rank
    slices = shares(len(key), ways)
    _, number = key.unique(return_inverse=True)
    owner = torch.cat([number.new_full((own.stop - own.start,), rank) for rank, own in enumerate(slices)])
    homes = homes_of_segments(number, owner, ways)
    if homes is None:
        return None
    home = homes[number]
    own = home[slices[me]]
    order = torch.argsort(own, stable=True)
    inverse = torch.empty_like(order)
    inverse[order] = torch.arange(len(order), device=order.device)
    return TokensPlan(
        segmentation=segment(key[home == me]),
        order=order,
        inverse=inverse,
        send=tuple(torch.bincount(own, minlength=ways).tolist()),
        receive=tuple(torch.bincount(owner[home == me], minlength=ways).tolist()),
        num_moved=4.0 * int((home != owner).sum()),
    )
