"""Exchanges of rows between the ranks of a group, with their gradients, and the groups themselves.

DeepSpeed's communication logger counts them. Fields in main memory are exchanged ahead of a step, over Gloo, apart from the
step. Each rank makes only its own groups, at most three for any number of ranks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd import Function
from torch.distributed import ProcessGroup, get_backend

from matey.parallel.package import deepspeed
from matey.parallel.topology import Topology

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
    """An exchange over a process group of its own, so that its messages cannot mix with those of the step.

    Attributes:
        num_bytes: bytes that this rank sent to others.
    """

    def __init__(self, groups: Sequence[Sequence[int]]) -> None:
        """Make this rank's process group from a partition of all ranks; all ranks must call."""
        self.num_bytes = 0
        self._group: Any = None
        if len(groups[0]) > 1:
            own = next(list(group) for group in groups if dist.get_rank() in group)
            self._group = dist.new_group(own, backend="gloo", use_local_synchronization=True)

    def gather(self, own: Tensor, counts: Sequence[int]) -> Tensor:
        """Return the numbers of all ranks, in their order."""
        longest = max(counts)
        parts = [own.new_empty(longest) for _ in counts]
        dist.all_gather(parts, torch.cat([own, own.new_zeros(longest - len(own))]), group=self._group)
        self.num_bytes += own.nbytes * (len(counts) - 1)
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])

    def swap(self, values: Tensor, send: Sequence[int], receive: Sequence[int]) -> Tensor:
        """Send runs of values to the ranks, in their order, and return those received."""
        received = values.new_empty(sum(receive))
        dist.all_to_all_single(received, values, list(receive), list(send), group=self._group)
        self.num_bytes += values.element_size() * (sum(send) - send[dist.get_rank(self._group)])
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
