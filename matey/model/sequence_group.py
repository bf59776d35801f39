"""The operations that sequence parallelism replaces, here in their one-process form, and the plans that they follow.

A `RankGroup` plans the division of work by arithmetic: it needs no other rank and may run anywhere, ahead of a step. The
`SequenceGroup` computes as planned, in step with the other ranks. Plans are orders of the tokens in which the segments of an
attention lie side by side, and ways of tokens and of cells from the ranks that have them to those that need them. A rank that
looks at the cells around its box gets them from the ranks beside it, beyond the end of a periodic axis too:

      o o o o | o o o              . : cells of rank 0, received by rank 1
      0 0 0 . | 1 1 1 o            o : other cells around the box of rank 1
      0 0 0 . | 1 1 1 o
      o o o o | o o o
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

from matey.model.attention import segment_attention
from matey.tokens.decomposition import Box
from matey.tokens.segments import Segmentation, segment

Order = tuple[Tensor, Tensor]
"""An order of the tokens and its inverse, both ``(n,)``; None stands for that of the packed list."""


@dataclass(frozen=True)
class Reordering:
    """A change of the order of the tokens.

    Attributes:
        index: ``(n,)``, the earlier place of the token at each place.
        inverse: ``(n,)``, the place of the token from each earlier place.
    """

    index: Tensor
    inverse: Tensor

    def back(self) -> Reordering:
        """Return the change that undoes this one."""
        return Reordering(self.inverse, self.index)


@dataclass(frozen=True)
class BlockPlan:
    """The plans of a block's attentions, and the orders of the tokens in them.

    Attributes:
        attentions: the plan of each attention.
        orders: order of the tokens in each attention: their places ``(n,)`` in the packed list; None where it is that list.
        enter: change before the first block, from the packed list to the order of a block's last attention; None: no change.
        within: change before each attention of a block, from the order of the one before it; None: no change.
    """

    attentions: tuple[Any, ...]
    orders: tuple[Tensor | None, ...]
    enter: Reordering | None
    within: tuple[Reordering | None, ...]

    @classmethod
    def in_place(cls, plans: Sequence[Any]) -> BlockPlan:
        """Return the plan of attentions for which tokens stay in the order of the packed list."""
        none = (None,) * len(plans)
        return cls(tuple(plans), none, None, none)

    @property
    def leave(self) -> Reordering | None:
        """The change after the last block, back to the packed list."""
        return None if self.enter is None else self.enter.back()

    def at_residuals(self, values: Tensor) -> list[Tensor]:
        """Return values of the tokens ``(n, ...)`` in the order of each residual of a block: its attentions, then the MLP."""
        return [values if order is None else values[order] for order in (*self.orders, self.orders[-1])]


def in_order(segmentations: Sequence[Segmentation]) -> BlockPlan:
    """Return the plan of attentions within segmentations of all tokens, for which tokens come segment by segment."""
    orders = [_order(segmentation) for segmentation in segmentations]
    return BlockPlan(
        attentions=tuple(replace(each, queries=None, keys=None, inverse=None) for each in segmentations),
        orders=tuple(None if order is None else order[0] for order in orders),
        enter=_between(None, orders[-1]),
        within=tuple(_between(orders[number - 1], order) for number, order in enumerate(orders)),
    )


def reordered(tokens: Tensor, change: Reordering | None) -> Tensor:
    """Return the tokens ``(n, e)`` in another order."""
    if change is None:
        return tokens
    found: Tensor = _Reordered.apply(tokens, change.index, change.inverse)
    return found


def _order(segmentation: Segmentation) -> Order | None:
    if segmentation.queries is None or segmentation.inverse is None:
        return None
    return segmentation.queries, segmentation.inverse


def _between(earlier: Order | None, later: Order | None) -> Reordering | None:
    """Return the change between two orders."""
    if earlier is None or later is None:
        return Reordering(*later) if later else Reordering(*earlier).back() if earlier else None
    if torch.equal(earlier[0], later[0]):
        return None
    return Reordering(earlier[1][later[0]], later[1][earlier[0]])


class _Reordered(Function):
    """Rows by an index, whose gradient is rows by the inverse index, where PyTorch would add row by row into zeros."""

    @staticmethod
    def forward(ctx: Any, tokens: Tensor, index: Tensor, inverse: Tensor) -> Tensor:  # noqa: ANN401
        ctx.index, ctx.inverse = index, inverse
        return tokens.index_select(0, index)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:  # noqa: ANN401
        # Differentiable again: `once_differentiable` would let `torch.autograd.grad` leave out a part of a second derivative.
        return _Reordered.apply(gradient, ctx.inverse, ctx.index), None, None


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
        """Return the tokens ``(k, e)`` that a `Route` leads to this rank, from its own ``(n, e)``."""
        return tokens if route is None else F.embedding(route.order, tokens)

    def reduce(self, partial: Tensor) -> Tensor:
        """Sum over the ranks that share the samples; each rank's gradient is the gradient of the sum."""
        return partial


@dataclass(frozen=True)
class Route:
    """The way of tokens from the ranks that have them to those that need them.

    Attributes:
        send: places ``(s,)`` among own tokens of those that go to other ranks, rank after rank.
        num_sent: number of tokens that go to each rank.
        num_received: number of tokens that come from each rank.
        order: ``(k,)``, the place of each token that is needed here among own tokens and, after these, those received.
    """

    send: Tensor
    num_sent: tuple[int, ...]
    num_received: tuple[int, ...]
    order: Tensor

    @classmethod
    def planned(cls, holder: Tensor, needed: Sequence[Tensor], me: int) -> Route | None:
        """Plan a route; None if each rank needs all that it has, in order, and nothing else.

        Args:
            holder: ``(n,)``, the rank that has each of all tokens, in ascending order.
            needed: the tokens that each rank needs, ascending.
            me: this rank.
        """
        place = torch.empty_like(holder)
        own = (holder == me).nonzero(as_tuple=True)[0]
        place[own] = torch.arange(len(own))
        sent = [each[holder[each] == me] if rank != me else each[:0] for rank, each in enumerate(needed)]
        of_rank = [needed[me][holder[needed[me]] == rank] if rank != me else own[:0] for rank in range(len(needed))]
        received = torch.cat(of_rank)
        if not len(received) and len(needed) == 1 and torch.equal(needed[me], own):
            return None
        place[received] = len(own) + torch.arange(len(received))
        return cls(
            send=place[torch.cat(sent)],
            num_sent=tuple(map(len, sent)),
            num_received=tuple(map(len, of_rank)),
            order=place[needed[me]],
        )


@dataclass(frozen=True)
class CellRoute:
    """The way of cells to the ranks that look at them: those of their boxes and around them.

    Attributes:
        route: the route of the cells ``k z y x`` of a box, one after the other.
        shape: size ``k, z, y, x`` of what this rank looks at.
    """

    route: Route
    shape: tuple[int, ...]

    @classmethod
    def planned(cls, boxes: Sequence[Box], seen: Sequence[Sequence[Tensor]], me: int) -> CellRoute:
        """Plan a route.

        Args:
            boxes: the box of each rank; ranks have the same samples or no sample in common.
            seen: the cells along ``z, y, x`` that each rank looks at, counted from the domain's first; some may come twice.
            me: this rank.
        """
        everyone, num_samples = range(len(boxes)), boxes[me].samples.stop - boxes[me].samples.start
        sizes, sizes_seen = [side.stop - side.start for side in boxes[me].cells], list(map(len, seen[me]))

        def numbers(places: Sequence[Tensor], of: Sequence[int]) -> Tensor:
            """Return the numbers of places along ``z, y, x`` in the list of all, of each sample."""
            number = torch.arange(num_samples)
            for place, size in zip(places, of, strict=True):
                number = number[..., None] * size + place
            return number.flatten()

        def shared(holder: int, receiver: int) -> Iterator[tuple[Tensor, Tensor]]:
            """Yield along each axis the places of cells in the one's box, and among those that the other looks at."""
            if boxes[holder].samples == boxes[receiver].samples:
                for side, cells in zip(boxes[holder].cells, seen[receiver], strict=True):
                    at = ((cells >= side.start) & (cells < side.stop)).nonzero(as_tuple=True)[0]
                    yield cells[at] - side.start, at

        sent, received = [torch.empty(0, dtype=torch.long)] * len(boxes), [0] * len(boxes)
        order = torch.empty(num_samples * sizes_seen[0] * sizes_seen[1] * sizes_seen[2], dtype=torch.long)
        first = numbers(list(map(torch.arange, sizes)), sizes).numel()
        for rank in everyone:
            if rank != me and (found := list(shared(me, rank))):
                sent[rank] = numbers([place for place, _ in found], sizes)
            if found := list(shared(rank, me)):
                held, at = zip(*found, strict=True)
                here = numbers(at, sizes_seen)
                if rank == me:
                    order[here] = numbers(held, sizes)
                else:
                    received[rank] = len(here)
                    order[here] = first + sum(received[:rank]) + torch.arange(len(here))
        route = Route(torch.cat(sent), tuple(map(len, sent)), tuple(received), order)
        return cls(route, (num_samples, *sizes_seen))

    def of(self, values: Tensor, exchange: Callable[[Tensor, Route], Tensor]) -> Tensor:
        """Return values ``(k, ..., z, y, x)`` in the cells that this rank looks at, from those in its box.

        Args:
            values: the values.
            exchange: function that leads rows ``(n, c)`` along a route, such as `SequenceGroup.exchange_tokens`.
        """
        rows = values.flatten(1, -4).movedim(1, -1).flatten(0, -2)  # (k z y x, c)
        found = exchange(rows, self.route).view(*self.shape, rows.shape[1]).movedim(-1, 1)
        return found.reshape(self.shape[0], *values.shape[1:-3], *self.shape[1:])


def swapped(rows: Tensor, route: Route, exchange: Exchange) -> Tensor:
    """Lead rows ``(n, c)`` on the host along a route, without gradients."""
    width = rows.shape[1]
    numbers = ([width * number for number in of_ranks] for of_ranks in (route.num_sent, route.num_received))
    received = exchange.swap(rows[route.send].flatten(), *numbers).view(-1, width)
    return torch.cat([rows, received]).index_select(0, route.order)
