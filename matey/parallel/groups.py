"""Communicators of sequence groups: each rank makes only its own, at most three for any number of ranks."""

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
    """The groups of a rank; None for a group of this rank alone.

    Attributes:
        sequence: group of the ranks that share samples with this rank.
        heads: group in which this rank exchanges tokens for heads.
        queries: group of the ranks that hold the same heads.
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
        # NCCL's communicator of all ranks can be split once for all groups; all ranks take part.
        return dist.split_group(split_ranks=[list(ranks) for ranks in partition])
    own = next(ranks for ranks in partition if dist.get_rank() in ranks)
    return dist.new_group(own, use_local_synchronization=True)
