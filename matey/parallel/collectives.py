"""The few collectives that training and its bookkeeping need outside the engine."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

Value = TypeVar("Value")


def rank() -> int:
    """Return this process's rank, 0 without a process group."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Return the number of ranks, 1 without a process group."""
    return dist.get_world_size() if dist.is_initialized() else 1


def sum_over_ranks(values: Tensor) -> Tensor:
    """Return the sum of ``values`` over all ranks, on every rank."""
    total = values.clone()
    if dist.is_initialized():
        dist.all_reduce(total)
    return total


def largest_over_ranks(value: Tensor) -> Tensor:
    """Return the largest ``value`` of all ranks, on every rank."""
    largest = value.clone()
    if dist.is_initialized():
        dist.all_reduce(largest, dist.ReduceOp.MAX)
    return largest


def barrier() -> None:
    """Wait until every rank is here."""
    if dist.is_initialized():
        dist.barrier()


def from_rank_zero(value: Value) -> Value:
    """Return rank 0's value on every rank."""
    box = [value]
    if dist.is_initialized():
        dist.broadcast_object_list(box, src=0)
    return box[0]


def from_all_ranks(value: object) -> list[Any]:
    """Return the values of all ranks, in their order."""
    if not dist.is_initialized():
        return [value]
    values = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def on_any_rank(flag: bool) -> bool:
    """Return whether the flag is set on any rank."""
    return any(from_all_ranks(flag))


def peak_memory_bytes() -> int:
    """Return the most memory this process held: of the GPU if there is one, else resident memory."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    import resource
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
