"""Sequence parallelism: a sequence group of several ranks that share samples, exact for any number of heads, tokens and ranks.

Every rank holds an equal slice of the packed tokens. Attention has two plans, and each segmentation takes the one that moves
fewer bytes. The first exchanges tokens for heads (Ulysses, arXiv:2309.14509), and divides queries among ranks where there are
too few heads. The second moves tokens so that each segment is whole on one rank: where its tokens lie if that is even, else as
evenly as possible.

Gathered keys and values belong to the whole sequence and would make up most of a rank's memory. They are not kept for the
backward pass but gathered again there: each view of them that attention saves is replaced by its place. The first view that
the backward pass asks for gathers them again; after the last one they are dropped. A rank whose attention saves only copies
(for instance of each segment) still gathers with the others, which wait for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from copy import copy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor
from torch.autograd import Function
from torch.autograd.graph import saved_tensors_hooks

from matey.model.attention import segment_attention
from matey.model.matey import MateyModel
from matey.model.sequence_group import BlockPlan, RankGroup, SequenceGroup
from matey.parallel.collectives import rank, world_size
from matey.parallel.exchange import (
    HostExchange,
    Topology,
    exchange_rows,
    gather_rows,
    make_groups,
    shares,
    sum_over_group,
)
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
        self.group, self._heads, self._queries = make_groups(topology)

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
        with not_kept(gathered, gather) if self._gathers_again else nullcontext(lambda values: values) as asked_for:
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


# Whole segments move only if no rank gets more than this times its share of tokens and of the attention's products.
MOST_IMBALANCE = 1.1

LAST_TURNS = 64
"""Number per rank of the shortest segments, dealt out one by one, which takes 5 to 11 us each: 20 ms on 64 ranks."""


def homes_of_segments(number: Tensor, owner: Tensor, ways: int) -> Tensor | None:
    """Choose a rank for each segment: the rank with most of its tokens or, if that is uneven, each rank in turn.

    Args:
        number: ``(n,)`` segment of each token, from 0.
        owner: ``(n,)`` rank that holds each token.
        ways: number of ranks.

    Returns:
        The rank of each segment ``(segments,)``; None if there are fewer segments than ranks, or if some rank would get
        more than `MOST_IMBALANCE` times its share of the tokens or of the attention's products.
    """
    num_segments = int(number.max()) + 1 if len(number) else 0
    if num_segments < ways:
        return None
    counts = torch.bincount(number * ways + owner, minlength=num_segments * ways).view(-1, ways)
    lengths = counts.sum(dim=1).double()
    work = lengths.square()
    homes = counts.argmax(dim=1)
    if _is_even(homes, work, ways) and _is_even(homes, lengths, ways):
        return homes
    homes = _in_turns(counts, lengths, work)
    return homes if _is_even(homes, work, ways) and _is_even(homes, lengths, ways) else None


def _in_turns(counts: Tensor, lengths: Tensor, work: Tensor) -> Tensor:
    """Give each rank a segment per turn, the longest first; the last segments go to the rank that has least so far.

    Over all turns, two ranks differ by at most one longest segment.
    """
    homes, ways = counts.argmax(dim=1), counts.shape[1]
    order = torch.argsort(work, descending=True, stable=True)
    first = max(len(order) // ways - LAST_TURNS, 0) * ways
    turns = order[:first].view(-1, ways)
    turns = turns.gather(1, homes[turns].argsort(dim=1, stable=True))  # segments stay where they lie if they can
    chosen = homes.index_copy(0, turns.flatten(), torch.arange(ways, device=homes.device).repeat(len(turns)))
    shares = torch.stack([lengths / lengths.sum(), work / work.sum()])
    last = order[first:]
    loads, own = shares[:, turns].sum(dim=1).T.cpu().numpy(), shares[:, last].T.cpu().numpy()  # (ways, 2), (s, 2)
    return chosen.index_copy(0, last, torch.from_numpy(dealt(loads, own, counts[last].cpu().numpy())).to(chosen))


def dealt(loads: np.ndarray, shares: np.ndarray, held: np.ndarray) -> np.ndarray:
    """Give each segment in turn to the rank that has least so far; among equal ranks, to the one that holds most of it.

    Args:
        loads: ``(ways, 2)``, shares of the tokens and of the work that each rank has.
        shares: ``(s, 2)``, shares that come with each segment.
        held: ``(s, ways)``, tokens of each segment that each rank holds.
    """
    homes, loads = np.empty(len(shares), dtype=np.int64), loads.copy()
    largest = loads.max(axis=1)
    for number, (more, of_ranks) in enumerate(zip(shares, held, strict=True)):
        rank = homes[number] = np.where(largest == largest.min(), of_ranks, -1).argmax()
        loads[rank] += more
        largest[rank] = loads[rank].max()
    return homes


def _is_even(homes: Tensor, amounts: Tensor, ways: int) -> bool:
    """Whether no rank gets more than `MOST_IMBALANCE` times its share of the segments' amounts."""
    shared = torch.zeros(ways, dtype=amounts.dtype, device=amounts.device).index_add(0, homes, amounts)
    return bool(shared.max() <= MOST_IMBALANCE * amounts.sum() / ways)


_Place = tuple[Any, Any, Any]
"""Size, strides and offset of a saved view."""


class _AsksFor(Function):
    """Return the first tensor; the backward pass asks for the saved part of the second one, an empty view."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, other: Tensor) -> Tensor:  # noqa: ANN401
        ctx.save_for_backward(other[:0])
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # noqa: ANN401
        _ = ctx.saved_tensors
        return gradient, None


@contextmanager
def not_kept(gathered: Tensor, gather_again: Callable[[], Tensor]) -> Iterator[Callable[[Tensor], Tensor]]:
    """Keep no view of ``gathered`` for the backward pass of the computation inside.

    It yields a function to apply to the result, inside: with it the backward pass gathers on every rank, exactly once.

    Args:
        gathered: the tensor whose storage is given up.
        gather_again: function that makes an equal tensor; all ranks of the group call it in the same order.
    """
    storage = gathered.untyped_storage().data_ptr()
    pending, again, asks = 0, None, False

    def pack(tensor: Tensor) -> Tensor | _Place:
        nonlocal pending
        if not asks and (not tensor.numel() or tensor.untyped_storage().data_ptr() != storage):
            return tensor
        pending += 1
        return tensor.size(), tensor.stride(), tensor.storage_offset()

    def unpack(saved: Tensor | _Place) -> Tensor:
        nonlocal pending, again
        if isinstance(saved, Tensor):
            return saved
        if again is None:
            with torch.no_grad():
                again = gather_again()
        view = again.as_strided(*saved)
        pending -= 1
        if pending == 0:
            again = None
        return view

    def asked_for(values: Tensor) -> Tensor:
        nonlocal asks
        if pending or not torch.is_grad_enabled():
            return values
        asks = True
        values = _AsksFor.apply(values, gathered.detach())
        asks = False
        return values

    with saved_tensors_hooks(pack, unpack):
        yield asked_for
