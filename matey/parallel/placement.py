"""Checks that ranks are numbered node by node, which sequence groups of consecutive ranks need."""

from __future__ import annotations

from matey.config import ConfigError
from matey.parallel.collectives import on_any_rank
from matey.parallel.topology import Topology

_place = (0, 1)


def note_place(local_rank: int, local_world_size: int) -> None:
    """Note this rank's number on its node, and the number of ranks there."""
    global _place
    _place = (local_rank, local_world_size)


def is_first_of_node() -> bool:
    """Whether this rank is the first on its node; without others, it is."""
    return _place[0] == 0


def leaves_node(topology: Topology, local_rank: int, local_world_size: int) -> bool:
    """Whether this rank's sequence group reaches beyond its node, although nodes could hold such groups whole.

    Each rank judges alone: if ranks were numbered node by node, its node's ranks would be consecutive from
    ``rank - local_rank`` on. If they are not, some rank finds its group outside.
    """
    size = topology.sequence_parallel_size
    if local_world_size % size:
        return False
    first_of_node = topology.rank - local_rank
    first_of_group = topology.data_rank * size
    return not first_of_node <= first_of_group <= first_of_node + local_world_size - size


def check_placement(topology: Topology) -> None:
    """Raise ConfigError on all ranks if a sequence group spans several nodes although it could stay inside one.

    All ranks must call, after `matey.parallel.environment.start_processes`, which notes their places.
    """
    if on_any_rank(leaves_node(topology, *_place)):
        raise ConfigError(
            f"Ranks are not numbered node by node, so sequence groups of {topology.sequence_parallel_size} span several "
            "nodes; start with srun --distribution=block, or mpirun --map-by slot."
        )
