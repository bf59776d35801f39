"""The alpha-beta model beside a simulation of messages, and exact cases."""

import pytest

from matey.planning.collectives import Group, seconds
from matey.planning.machine import Link, load_machine
from tests.planning.messages import at_the_same_time, halving_and_doubling, pairwise, ring, run

INSIDE, BETWEEN = Link(latency=3e-6, bandwidth=5e10), Link(latency=2e-5, bandwidth=1e10)
MACHINE = load_machine("frontier").model_copy(update={"inside": INSIDE, "between": BETWEEN})
MIB = 2.0**20


def node_of(rank):
    return rank // 4


@pytest.mark.parametrize("num_ranks", [2, 3, 8])
@pytest.mark.parametrize(("kind", "times"), [("all_reduce", 2), ("reduce_scatter_tensor", 1)])
def test_a_ring_on_a_node_takes_what_its_messages_take(num_ranks, kind, times):
    simulated = run(ring(list(range(num_ranks)), MIB, times), lambda rank: 0, INSIDE, BETWEEN)
    assert seconds(kind, MIB, Group(num_ranks, num_ranks), MACHINE) == pytest.approx(simulated, rel=1e-9)


@pytest.mark.parametrize("nodes", [2, 4, 8])
def test_all_reduce_across_nodes_takes_what_its_three_parts_take(nodes):
    ranks = list(range(4 * nodes))
    on_nodes = at_the_same_time(*(ring(ranks[first : first + 4], MIB) for first in range(0, len(ranks), 4)))
    across = at_the_same_time(*(halving_and_doubling(ranks[die::4], MIB / 4) for die in range(4)))
    rounds, modelled = [*on_nodes, *across, *on_nodes], seconds("all_reduce", MIB, Group(4 * nodes, 4), MACHINE)
    assert modelled == pytest.approx(run(rounds, node_of, INSIDE, BETWEEN), rel=1e-9)
    # Ranks that do not wait for each other between rounds hide a part of the latency.
    assert 0.65 * modelled < run(rounds, node_of, INSIDE, BETWEEN, in_step=False) <= modelled * (1 + 1e-9)


@pytest.mark.parametrize("nodes", [1, 2, 3])
def test_all_to_all_takes_what_its_messages_take(nodes):
    ranks = list(range(4 * nodes))
    simulated = run(pairwise(ranks, MIB, node_of), node_of, INSIDE, BETWEEN)
    assert seconds("all_to_all_single", MIB, Group(4 * nodes, 4), MACHINE) == pytest.approx(simulated, rel=1e-9)


def test_92_nodes_of_8_by_hand():
    # 7 rounds of an eighth inside, 2 x ceil(log2 92) = 14 between with 2 x 91/92 of all 8 eighths, 7 inside.
    by_hand = 14 * 3e-6 + 2 * 7 / 8 * MIB / 5e10 + 14 * 2e-5 + 2 * 91 / 92 * MIB / 1e10
    assert seconds("all_reduce", MIB, Group(736, 8), MACHINE) == pytest.approx(by_hand, rel=1e-12)
