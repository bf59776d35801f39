"""The division of ranks into sequence groups, and exchanges of rows between the ranks of a group, with their gradients.

DeepSpeed's communication logger counts them. Fields in main memory are exchanged ahead of a step, over Gloo, apart from the
step. Each rank makes only its own groups, at most three for any number of ranks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd import Function
from torch.distributed import ProcessGroup, get_backend

from matey.config import ConfigError
from matey.parallel.collectives import deepspeed


@dataclass(frozen=True)
class Topology:
    """The place of one rank; ranks of a sequence group are consecutive, so that a group stays inside a node if it can.

    A sequence group of P ranks is P_h x P_q: inside P_h = gcd(heads, P) consecutive ranks tokens are exchanged for heads,
    and P_q ranks with the same heads share the queries.

    Attributes:
        rank: number of this rank among all ranks.
        num_ranks: number of all ranks.
        sequence_parallel_size: number of ranks ``P`` that share samples.
        num_heads: number of heads of the attention.
    """

    rank: int = 0
    num_ranks: int = 1
    sequence_parallel_size: int = 1
    num_heads: int = 1

    def __post_init__(self) -> None:
        """Raise ConfigError unless the groups come out even."""
        P, W = self.sequence_parallel_size, self.num_ranks
        if P < 1 or W % P:
            divisors = ", ".join(str(d) for d in range(1, W + 1) if W % d == 0)
            raise ConfigError(
                f"parallel.sequence_parallel_size is {P}, which does not divide the {W} ranks of this run; "
                f"use one of {divisors}, or start another number of ranks."
            )

    @property
    def num_data_ranks(self) -> int:
        """Number of sequence groups, each with samples of its own."""
        return self.num_ranks // self.sequence_parallel_size

    @property
    def data_rank(self) -> int:
        """Number of this rank's sequence group."""
        return self.rank // self.sequence_parallel_size

    @property
    def sequence_rank(self) -> int:
        """Place in the sequence group: the rank's slice of the tokens."""
        return self.rank % self.sequence_parallel_size

    @property
    def head_ways(self) -> int:
        """P_h, the number of ranks among which heads are divided."""
        return math.gcd(self.num_heads, self.sequence_parallel_size)

    @property
    def query_ways(self) -> int:
        """P_q, the number of ranks with the same heads among which queries are divided."""
        return self.sequence_parallel_size // self.head_ways

    def sequence_groups(self) -> list[list[int]]:
        """Return the ranks of every sequence group."""
        P = self.sequence_parallel_size
        return [list(range(first, first + P)) for first in range(0, self.num_ranks, P)]

    def head_groups(self) -> list[list[int]]:
        """Return the ranks of every group that exchanges tokens for heads."""
        return [list(range(first, first + self.head_ways)) for first in range(0, self.num_ranks, self.head_ways)]

    def query_groups(self) -> list[list[int]]:
        """Return the ranks of every group with the same heads."""
        return [group[h :: self.head_ways] for group in self.sequence_groups() for h in range(self.head_ways)]


def shares(num_tokens: int, ways: int) -> list[slice]:
    """Cut a packed list into consecutive slices that are equal to within one token."""
    return [slice(way * num_tokens // ways, (way + 1) * num_tokens // ways) for way in range(ways)]


Group = ProcessGroup | None  # None: all ranks
NO_SECOND = "exchanges between ranks have no second derivatives: leave out create_graph=True"


def exchange_rows(rows: Tensor, send: Sequence[int], receive: Sequence[int], group: Group) -> Tensor:
    """Send the first ``send[0]`` rows to the first rank of the group, the next ``send[1]`` to the second, and so on.

    Args:
        rows: ``(sum of send, ...)``, the rows to send, ordered by rank.
        send: number of rows for each rank.
        receive: number of rows from each rank.
        group: process group; all its ranks must call.

    Returns:
        The received rows ``(sum of receive, ...)``, in the order of the ranks.
    """
    return _Exchange.apply(rows, tuple(send), tuple(receive), group)


def gather_rows(rows: Tensor, counts: Sequence[int], group: Group) -> Tensor:
    """Return the rows of all ranks of a group, in their order; the gradient is summed over the ranks.

    Args:
        rows: ``(own count, ...)``, the rows of this rank.
        counts: number of rows of each rank; they differ by little.
        group: process group; all its ranks must call.
    """
    return _Gather.apply(rows, tuple(counts), group)


def reduce_scatter(parts: Tensor, counts: Sequence[int], own: int, group: Group) -> Tensor:
    """Sum over the ranks of a group; each rank keeps the sums of its rows.

    Args:
        parts: ``(sum of counts, ...)``, this rank's part of the rows of all ranks.
        counts: number of rows of each rank; they differ by little.
        own: number of rows of this rank.
        group: process group; all its ranks must call.

    Returns:
        ``(own, ...)``, the sum of this rank's rows.
    """
    longest = max(counts)
    if min(counts) < longest:
        parts = torch.cat([_filled_up(part, longest) for part in parts.split(counts)])
    total = parts.new_empty(longest, *parts.shape[1:])
    deepspeed().comm.reduce_scatter_fn(total, parts.contiguous(), group=group)
    return total[:own]


def exchange_and_sum(parts: Tensor, counts: Sequence[int], own: int, group: Group) -> Tensor:
    """Sum and scatter over gloo, see `reduce_scatter`: gloo's own sums all rows on every rank, for twice the bytes."""
    ways = len(counts)
    return _all_to_all(parts, counts, [own] * ways, group).view(ways, own, *parts.shape[1:]).sum(0)


def sum_over_group(partial: Tensor, group: Group) -> Tensor:
    """Sum over a group; all ranks use the sum in the same way, so each rank's gradient is the gradient of the sum."""
    return _Sum.apply(partial, group)


class _Exchange(Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, send: tuple[int, ...], receive: tuple[int, ...], group: Group) -> Tensor:  # noqa: ANN401
        ctx.send, ctx.receive, ctx.group = send, receive, group
        return _all_to_all(rows, send, receive, group)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:  # noqa: ANN401
        assert not torch.is_grad_enabled(), NO_SECOND
        return _all_to_all(gradient, ctx.receive, ctx.send, ctx.group), None, None, None


class _Gather(Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, counts: tuple[int, ...], group: Group) -> Tensor:  # noqa: ANN401
        ctx.counts, ctx.group, ctx.own = counts, group, len(rows)
        longest = max(counts)
        gathered = rows.new_empty(len(counts) * longest, *rows.shape[1:])
        deepspeed().comm.all_gather_into_tensor(gathered, _filled_up(rows, longest), group=group)
        if min(counts) == longest:
            return gathered
        parts = gathered.split(longest)
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:  # noqa: ANN401
        assert not torch.is_grad_enabled(), NO_SECOND
        scatter = exchange_and_sum if get_backend(ctx.group) == "gloo" else reduce_scatter
        return scatter(gradient, ctx.counts, ctx.own, ctx.group), None, None


class _Sum(Function):
    @staticmethod
    def forward(ctx: Any, partial: Tensor, group: Group) -> Tensor:  # noqa: ANN401
        total = partial.clone()
        deepspeed().comm.all_reduce(total, group=group)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # noqa: ANN401
        return gradient, None


def _all_to_all(rows: Tensor, send: Sequence[int], receive: Sequence[int], group: Group) -> Tensor:
    received = rows.new_empty(sum(receive), *rows.shape[1:])
    deepspeed().comm.all_to_all_single(
        received, rows.contiguous(), output_split_sizes=list(receive), input_split_sizes=list(send), group=group
    )
    return received


def _filled_up(rows: Tensor, count: int) -> Tensor:
    """Append rows of zeros up to ``count``."""
    missing = count - len(rows)
    return torch.cat([rows, rows.new_zeros(missing, *rows.shape[1:])]) if missing else rows.contiguous()


class HostExchange:
    """An exchange over a process group of its own, so that its messages cannot mix with those of the step."""

    def __init__(self, groups: Sequence[Sequence[int]]) -> None:
        """Make this rank's process group from a partition of all ranks; all ranks must call."""
        self._group: Any = None
        if len(groups[0]) > 1:
            own = next(list(group) for group in groups if dist.get_rank() in group)
            self._group = dist.new_group(own, backend="gloo", use_local_synchronization=True)

    def gather(self, own: Tensor, counts: Sequence[int]) -> Tensor:
        """Return the numbers of all ranks, in their order."""
        longest = max(counts)
        parts = [own.new_empty(longest) for _ in counts]
        dist.all_gather(parts, torch.cat([own, own.new_zeros(longest - len(own))]), group=self._group)
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])

    def swap(self, values: Tensor, send: Sequence[int], receive: Sequence[int]) -> Tensor:
        """Send runs of values to the ranks, in their order, and return those received."""
        received = values.new_empty(sum(receive))
        dist.all_to_all_single(received, values, list(receive), list(send), group=self._group)
        return received


Partition = Sequence[Sequence[int]]
"""All ranks, in groups."""


def make_groups(topology: Topology) -> list[ProcessGroup | None]:
    """Make the groups of this rank; all ranks must call.

    Returns:
        The group of the ranks that share samples with this rank, the one in which it exchanges tokens for heads, and that of
        the ranks that hold the same heads; None for a group of this rank alone.
    """
    made: list[tuple[Partition, ProcessGroup | None]] = []
    chosen = []
    for partition in (topology.sequence_groups(), topology.head_groups(), topology.query_groups()):
        group = next((group for same, group in made if same == partition), None) or _own_of(partition)
        made.append((partition, group))
        chosen.append(group)
    return chosen


def _own_of(partition: Partition) -> ProcessGroup | None:
    """Make this rank's group of a partition whose groups are all of one size."""
    if len(partition[0]) == 1:
        return None
    world = dist.group.WORLD
    assert world is not None, "ranks meet before their groups are made"
    if world.bound_device_id is not None and dist.get_backend() == "nccl":
        # NCCL's communicator of all ranks can be split once for all groups; all ranks take part.
        return dist.split_group(split_ranks=[list(ranks) for ranks in partition])
    own = next(ranks for ranks in partition if dist.get_rank() in ranks)
    return dist.new_group(own, use_local_synchronization=True)
