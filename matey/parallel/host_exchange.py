"""The exchange of fields in main memory between the ranks of a group, ahead of a step, over Gloo, apart from the step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


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
