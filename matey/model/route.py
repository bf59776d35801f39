"""The ways of tokens and of cells from the ranks that have them to those that need them.

A rank that looks at the cells around its box gets them from the ranks beside it, beyond the end of a periodic axis too:

      o o o o | o o o              . : cells of rank 0, received by rank 1
      0 0 0 . | 1 1 1 o            o : other cells around the box of rank 1
      0 0 0 . | 1 1 1 o
      o o o o | o o o
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from matey.model.sequence_group import Exchange
from matey.tokens.decomposition import Box


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
