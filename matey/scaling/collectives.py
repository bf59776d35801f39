"""How long collectives take: an alpha-beta model of each, on links inside a node and between nodes.

A message of n bytes takes ``alpha + n beta``. Each collective is a number of rounds, which cost alpha, and bytes that pass a
rank, which cost beta. Across nodes it is taken apart: inside each node, then between nodes over all links of a node at once,
then inside again, as NCCL and RCCL do. After Thakur, Rabenseifner and Gropp 2005 (doi:10.1177/1094342005051521).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls

from matey.scaling.machine import Link, Machine


@dataclass(frozen=True)
class Group:
    """Where the ranks of a collective are.

    Attributes:
        num_ranks: that take part.
        ranks_on_node: of them on each node, at most.
        sharing: groups of a node that call at the same time and share its links to other nodes.
    """

    num_ranks: int
    ranks_on_node: int
    sharing: int = 1

    @property
    def num_nodes(self) -> int:
        """Nodes that it reaches over."""
        return -(-self.num_ranks // self.ranks_on_node)


def rounds_and_bytes(kind: str, num_bytes: float, num_ranks: int) -> tuple[float, float]:
    """Return the rounds of a collective on one link, and the bytes that pass a rank.

    Args:
        kind: as DeepSpeed's communication logger names it.
        num_bytes: that a rank puts into the call; for ``broadcast``, that the root does.
        num_ranks: that take part.
    """
    p, n = num_ranks, num_bytes
    if p == 1:
        return 0.0, 0.0
    match kind:
        case "all_reduce":  # ring: reduce-scatter, then all-gather
            return 2.0 * (p - 1), 2 * n * (p - 1) / p
        case "reduce_scatter_tensor":  # ring
            return p - 1.0, n * (p - 1) / p
        case "all_gather_into_tensor":  # ring; n is what one rank brings
            return p - 1.0, n * (p - 1)
        case "all_to_all_single":  # pairwise
            return p - 1.0, n * (p - 1) / p
        case "broadcast":  # binomial tree
            return math.ceil(math.log2(p)), n * math.ceil(math.log2(p))
    raise ValueError(f"There is no model of the collective {kind!r}.")


def seconds(kind: str, num_bytes: float, group: Group, machine: Machine) -> float:
    """Return how long a collective takes."""
    inside, nodes = min(group.ranks_on_node, group.num_ranks), group.num_nodes
    if nodes == 1:
        return _on(machine.inside, *rounds_and_bytes(kind, num_bytes, inside))
    # What a rank has of its node's links while all of its node send.
    share = Link(latency=machine.between.latency, bandwidth=machine.between.bandwidth / (inside * group.sharing))
    if kind == "all_reduce":
        part = num_bytes / inside
        first = _on(machine.inside, *rounds_and_bytes("reduce_scatter_tensor", num_bytes, inside))
        across = min(_on(share, *rounds_and_bytes(kind, part, nodes)), _tree(share, part, nodes))
        return first + across + _on(machine.inside, *rounds_and_bytes("all_gather_into_tensor", part, inside))
    if kind == "reduce_scatter_tensor":
        first = _on(machine.inside, *rounds_and_bytes(kind, num_bytes, inside))
        return first + _on(share, *rounds_and_bytes(kind, num_bytes / inside, nodes))
    if kind == "all_gather_into_tensor":
        across = _on(share, *rounds_and_bytes(kind, num_bytes, nodes))
        return across + _on(machine.inside, *rounds_and_bytes(kind, num_bytes * nodes, inside))
    if kind == "all_to_all_single":
        each = num_bytes / group.num_ranks
        here = _on(machine.inside, inside - 1, each * (inside - 1))
        return here + _on(share, group.num_ranks - inside, each * (group.num_ranks - inside))
    across = _on(share, *rounds_and_bytes(kind, num_bytes, nodes))
    return across + _on(machine.inside, *rounds_and_bytes(kind, num_bytes, inside))


def _tree(link: Link, num_bytes: float, num_ranks: int) -> float:
    """All-reduce on a double binary tree, pipelined, as NCCL's: up and down, and all bytes twice over each link."""
    return _on(link, 2 * math.ceil(math.log2(num_ranks)), 2 * num_bytes)


def _on(link: Link, rounds: float, num_bytes: float) -> float:
    return rounds * link.latency + num_bytes / link.bandwidth


@dataclass(frozen=True)
class Point:
    """A collective on one link, timed.

    Attributes:
        kind: as in `rounds_and_bytes`.
        num_bytes: that a rank put in.
        num_ranks: that took part.
        seconds: of the call.
    """

    kind: str
    num_bytes: float
    num_ranks: int
    seconds: float


@dataclass(frozen=True)
class Fit:
    """A link fitted to measured collectives.

    Attributes:
        link: its latency and bandwidth.
        residuals: per point, modelled over measured seconds, less 1.
    """

    link: Link
    residuals: tuple[float, ...]


def fit(points: Sequence[Point]) -> Fit:
    """Fit latency and bandwidth of a link by non-negative least squares of relative errors.

    Raises:
        ValueError: fewer than two points, or points that do not tell latency from bandwidth.
    """
    rows = np.array([rounds_and_bytes(p.kind, p.num_bytes, p.num_ranks) for p in points])
    measured = np.array([p.seconds for p in points])
    if len(points) < 2 or np.linalg.matrix_rank(rows / rows.max(axis=0)) < 2:
        raise ValueError("A link is fitted to messages of two sizes at least.")
    (alpha, beta), _ = nnls(rows / measured[:, None], np.ones(len(points)))
    if beta == 0:
        raise ValueError("Larger messages did not take longer: time larger ones.")
    link = Link(latency=alpha, bandwidth=1 / beta)
    return Fit(link, tuple((rows @ [alpha, beta] / measured - 1).tolist()))
