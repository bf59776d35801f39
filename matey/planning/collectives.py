"""Estimates the time of collectives by an alpha-beta model of the links inside a node and between nodes.

A message of n bytes takes ``alpha + n beta``; a collective costs alpha for each round and beta for each byte. Across nodes, a
collective has three phases, as in NCCL and RCCL: inside each node, between nodes over all links of a node at once, and inside
again. Inside a node, all-reduce, reduce-scatter and all-gather use a ring; between nodes, all-reduce uses a tree (recursive
halving and doubling). After Thakur, Rabenseifner and Gropp 2005 (doi:10.1177/1094342005051521).
"""

from __future__ import annotations

import math
from dataclasses import astuple, dataclass

from matey.planning.machine import Machine

KINDS = ("all_reduce", "reduce_scatter_tensor", "all_gather_into_tensor", "all_to_all_single", "broadcast")


@dataclass(frozen=True)
class Group:
    """The ranks of a collective and their nodes.

    Attributes:
        num_ranks: number of ranks that take part.
        ranks_on_node: largest number of these ranks on one node.
        sharing: number of groups on a node that call at the same time and share the node's links to other nodes.
    """

    num_ranks: int
    ranks_on_node: int
    sharing: int = 1

    @property
    def inside(self) -> int:
        """Number of ranks of the collective on a node."""
        return min(self.num_ranks, self.ranks_on_node)

    @property
    def num_nodes(self) -> int:
        """Number of nodes of the collective."""
        return -(-self.num_ranks // self.ranks_on_node)


@dataclass(frozen=True)
class Passes:
    """A collective's messages and bytes on the links.

    Attributes:
        inside_rounds: number of rounds inside a node, one after another.
        inside_bytes: bytes that a device sends in the rounds inside a node.
        between_rounds: number of rounds between nodes, one after another.
        between_bytes: bytes that a node sends in the rounds between nodes, including those of its other groups.
    """

    inside_rounds: float = 0.0
    inside_bytes: float = 0.0
    between_rounds: float = 0.0
    between_bytes: float = 0.0


def passes(kind: str, num_bytes: float, group: Group) -> Passes:
    """Return a collective's messages and bytes on the links.

    Args:
        kind: one of `KINDS`, as DeepSpeed's communication logger names them.
        num_bytes: bytes that a rank puts into the call; for ``broadcast``, those of the root.
        group: the placement of the ranks.
    """
    n, p, d, nodes = num_bytes, group.num_ranks, group.inside, group.num_nodes
    # Ranks of a node share its links and send at the same time.
    side_by_side = d * group.sharing
    log_nodes = math.ceil(math.log2(nodes))
    match kind:
        case "all_reduce":  # reduce-scatter inside, all-reduce of each part between, all-gather inside
            across = 2 * n / d * (nodes - 1) / nodes
            return Passes(2 * (d - 1), 2 * n * (d - 1) / d, 2 * log_nodes, across * side_by_side)
        case "reduce_scatter_tensor":
            across = n / d * (nodes - 1) / nodes
            return Passes(d - 1, n * (d - 1) / d, nodes - 1, across * side_by_side)
        case "all_gather_into_tensor":  # n is one rank's input
            return Passes(d - 1, n * nodes * (d - 1), nodes - 1, n * (nodes - 1) * side_by_side)
        case "all_to_all_single":  # one partner after another
            each = n / p
            return Passes(d - 1, each * (d - 1), p - d, each * (p - d) * side_by_side)
        case "broadcast":  # a binomial tree of nodes, then of ranks
            rounds = math.ceil(math.log2(d))
            return Passes(rounds, n * rounds, log_nodes, n * log_nodes * group.sharing)
    raise ValueError(f"There is no model of the collective {kind!r}, only of {', '.join(KINDS)}.")


def seconds(kind: str, num_bytes: float, group: Group, machine: Machine) -> float:
    """Return the seconds that a collective takes."""
    links = [1 / machine.inside.bandwidth, 1 / machine.between.bandwidth]
    on = astuple(passes(kind, num_bytes, group))
    values = machine.inside.latency, links[0], machine.between.latency, links[1]
    return machine.factors.get(kind, 1.0) * sum(count * value for count, value in zip(on, values, strict=True))
