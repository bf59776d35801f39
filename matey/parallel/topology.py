"""The division of ranks into sequence groups, and of attention's heads and queries among their ranks: pure arithmetic."""

from __future__ import annotations

import math
from dataclasses import dataclass


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
        """Raise ValueError unless the groups come out even."""
        P, W = self.sequence_parallel_size, self.num_ranks
        if P < 1 or W % P:
            divisors = ", ".join(str(d) for d in range(1, W + 1) if W % d == 0)
            raise ValueError(
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
