"""Communicators of sequence groups: each rank makes its own, three at the most, however many ranks there are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch.distributed as dist
from torch.distributed import ProcessGroup

from matey.parallel.topology import Topology

Partition = Sequence[Sequence[int]]
"""All ranks, in groups."""


@dataclass(frozen=True)
class SequenceGroups:
    """The groups that a rank is in; None where it would be there alone.

    Attributes:
        sequence: the ranks that share its samples.
        heads: ranks with which it exchanges tokens for heads.
        queries: ranks that hold the same heads.
    """

    sequence: ProcessGroup | None
    heads: ProcessGroup | None
    queries: ProcessGroup | None


def make_groups(topology: Topology) -> SequenceGroups:
    """Make the groups of this rank; all ranks must call."""
    made: list[tuple[Partition, ProcessGroup | None]] = []
    chosen = []
    for partition in (topology.sequence_groups(), topology.head_groups(), topology.query_groups()):
        group = next((group for same, group in made if same == partition), None) or _own_of(partition)
        made.append((partition, group))
        chosen.append(group)
    return SequenceGroups(*chosen)


def _own_of(partition: Partition) -> ProcessGroup | None:
    """Make this rank's group of a partition whose groups are all of one size."""
    if len(partition[0]) == 1:
        return None
    world = dist.group.WORLD
    assert world is not None, "ranks meet before their groups are made"
    if world.bound_device_id is not None and dist.get_backend() == "nccl":
        # The world's communicator of NCCL can be split, in which all ranks take part: once for all groups.
        return dist.split_group(split_ranks=[list(ranks) for ranks in partition])
    own = next(ranks for ranks in partition if dist.get_rank() in ranks)
    return dist.new_group(own, use_local_synchronization=True)
