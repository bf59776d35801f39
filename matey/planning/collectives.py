"""How long collectives take: an alpha-beta model of each on the links inside a node and between nodes, and its fit.

A message of n bytes takes ``alpha + n beta``; a collective costs alpha for each of its rounds and beta for each byte. Across
nodes it is taken apart: inside each node, between nodes over all links of a node at once, and inside again, as NCCL and RCCL
do. Inside a node all-reduce, reduce-scatter and all-gather go around a ring; between nodes all-reduce is a tree (recursive
halving and doubling). After Thakur, Rabenseifner and Gropp 2005 (doi:10.1177/1094342005051521).
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass

import numpy as np
from scipy.optimize import least_squares

from matey.planning.machine import Link, Machine

KINDS = ("all_reduce", "reduce_scatter_tensor", "all_gather_into_tensor", "all_to_all_single", "broadcast")


@dataclass(frozen=True)
class Group:
    """The ranks of a collective and their nodes.

    Attributes:
        num_ranks: number of ranks that take part.
        ranks_on_node: largest number of these ranks on one node.
        sharing: number of groups of a node that call at the same time and share its links to other nodes.
    """

    num_ranks: int
    ranks_on_node: int
    sharing: int = 1

    @property
    def inside(self) -> int:
        """Ranks that take part on a node."""
        return min(self.num_ranks, self.ranks_on_node)

    @property
    def num_nodes(self) -> int:
        """Nodes that it reaches over."""
        return -(-self.num_ranks // self.ranks_on_node)


@dataclass(frozen=True)
class Passes:
    """A collective's messages and bytes on the links.

    Attributes:
        inside_rounds: number of rounds inside a node, one after another.
        inside_bytes: bytes that a device sends in these rounds.
        between_rounds: number of rounds between nodes, one after another.
        between_bytes: bytes that a node sends in these rounds, those of other groups on it included.
    """

    inside_rounds: float = 0.0
    inside_bytes: float = 0.0
    between_rounds: float = 0.0
    between_bytes: float = 0.0


def passes(kind: str, num_bytes: float, group: Group) -> Passes:
    """Return a collective's messages and bytes on the links.

    Args:
        kind: one of `KINDS`, as DeepSpeed's communication logger names them.
        num_bytes: bytes that a rank puts into the call; for ``broadcast``, that the root puts in.
        group: the placement of the ranks.
    """
    n, p, d, nodes = num_bytes, group.num_ranks, group.inside, group.num_nodes
    # Ranks of a node send side by side over its links.
    side_by_side = d * group.sharing
    log_nodes = math.ceil(math.log2(nodes))
    match kind:
        case "all_reduce":  # reduce-scatter inside, all-reduce of each part between, all-gather inside
            across = 2 * n / d * (nodes - 1) / nodes
            return Passes(2 * (d - 1), 2 * n * (d - 1) / d, 2 * log_nodes, across * side_by_side)
        case "reduce_scatter_tensor":
            across = n / d * (nodes - 1) / nodes
            return Passes(d - 1, n * (d - 1) / d, nodes - 1, across * side_by_side)
        case "all_gather_into_tensor":  # n is what one rank brings
            return Passes(d - 1, n * nodes * (d - 1), nodes - 1, n * (nodes - 1) * side_by_side)
        case "all_to_all_single":  # with each partner in turn
            each = n / p
            return Passes(d - 1, each * (d - 1), p - d, each * (p - d) * side_by_side)
        case "broadcast":  # a binomial tree of nodes, then of ranks
            rounds = math.ceil(math.log2(d))
            return Passes(rounds, n * rounds, log_nodes, n * log_nodes * group.sharing)
    raise ValueError(f"There is no model of the collective {kind!r}, only of {', '.join(KINDS)}.")


def seconds(kind: str, num_bytes: float, group: Group, machine: Machine) -> float:
    """Return how long a collective takes."""
    links = [1 / machine.inside.bandwidth, 1 / machine.between.bandwidth]
    on = astuple(passes(kind, num_bytes, group))
    values = machine.inside.latency, links[0], machine.between.latency, links[1]
    return machine.factors.get(kind, 1.0) * sum(count * value for count, value in zip(on, values, strict=True))


@dataclass(frozen=True)
class Point:
    """A collective that was timed.

    Attributes:
        kind: one of `KINDS`.
        num_bytes: bytes that a rank put in.
        group: the placement of the ranks.
        seconds: seconds that the call took.
    """

    kind: str
    num_bytes: float
    group: Group
    seconds: float


def read_points(text: str) -> list[Point]:
    """Read the lines that `matey.parallel.collective_speed` printed; what else a job printed is passed over.

    Raises:
        ValueError: there is none.
    """
    points = []
    for line in text.splitlines():
        try:
            values = json.loads(line)
            group = Group(values["num_ranks"], values["ranks_on_node"])
            points.append(Point(values["kind"], values["num_bytes"], group, values["seconds"]))
        except (json.JSONDecodeError, KeyError, TypeError):  # no JSON, other keys, no keys at all
            continue
    if not points:
        raise ValueError("The files hold no line that matey.parallel.collective_speed printed.")
    return points


@dataclass(frozen=True)
class Fit:
    """Links fitted to measured collectives.

    Attributes:
        inside: the link inside a node; None where no point has two ranks on a node.
        between: the link between nodes; None where all points are on one node.
        factors: ratio of measured to modelled seconds for each kind, since libraries use other algorithms for some.
        residuals: relative error of the model at each point, modelled over measured seconds less 1.
    """

    inside: Link | None
    between: Link | None
    factors: dict[str, float]
    residuals: tuple[float, ...]

    def on(self, machine: Machine) -> Machine:
        """Return a machine with what was fitted in place of its own."""
        links = {"inside": self.inside, "between": self.between}
        links = {name: link for name, link in links.items() if link is not None}
        return machine.model_copy(update={**links, "factors": self.factors})


def fit(points: Sequence[Point]) -> Fit:
    """Fit latency and bandwidth of the links, and a factor for each kind, by least squares of the logarithms.

    The geometric mean of the factors is 1. Points far off, as of a moment when the machine did other things, count less.

    Raises:
        ValueError: the points do not tell latency from bandwidth on each link that they use, or some are of one rank.
    """
    if any(point.group.num_ranks < 2 for point in points):
        raise ValueError("A collective of one rank sends nothing: links are fitted to those of at least two ranks.")
    measured = np.array([point.seconds for point in points])
    rows = np.array([astuple(passes(p.kind, p.num_bytes, p.group)) for p in points])
    used = np.asarray(rows.any(axis=0))
    rows = rows[:, used]
    # Kinds differ in rounds and bytes, but have factors as well: they alone do not tell latency from bandwidth.
    one_size = len({point.num_bytes for point in points}) == 1
    if one_size or np.linalg.matrix_rank(rows / rows.max(axis=0)) < used.sum():
        raise ValueError(
            "Links can only be fitted to messages of several sizes: measured on one node, and for the links between nodes "
            "on several."
        )
    kinds = sorted({point.kind for point in points})
    member = np.array([[point.kind == kind for kind in kinds] for point in points], dtype=float)
    member -= member.mean(axis=1, keepdims=True)

    def logarithms(unknowns: np.ndarray) -> np.ndarray:
        return np.log(rows @ np.exp(unknowns[: rows.shape[1]])) + member @ unknowns[rows.shape[1] :]

    # From every column taken alone: the least that a round, and a byte, can have taken.
    start = [np.log((measured[column > 0] / column[column > 0]).min()) for column in rows.T]
    found = least_squares(
        lambda unknowns: logarithms(unknowns) - np.log(measured), [*start, *np.zeros(len(kinds))], loss="soft_l1"
    ).x
    values = np.zeros(4)
    values[used] = np.exp(found[: rows.shape[1]])
    inside, between = (
        Link(latency=values[first], bandwidth=1 / values[first + 1]) if used[first] else None for first in (0, 2)
    )
    factors = np.exp(found[rows.shape[1] :] - found[rows.shape[1] :].mean())
    return Fit(
        inside,
        between,
        factors=dict(zip(kinds, factors.tolist(), strict=True)),
        residuals=tuple((np.exp(logarithms(found)) / measured - 1).tolist()),
    )
