"""The alpha-beta model beside a small simulation of messages, and exact cases."""

from collections import defaultdict

import pytest

from matey.planning.estimate import Group, seconds
from matey.planning.machine import Link, load_machine

INSIDE, BETWEEN = Link(latency=3e-6, bandwidth=5e10), Link(latency=2e-5, bandwidth=1e10)
MACHINE = load_machine("frontier").model_copy(update={"inside": INSIDE, "between": BETWEEN})
MIB = 2.0**20


def run(rounds, node_of, inside, between):
    """Return the seconds until all ranks are done with rounds of ``(from, to, bytes)``.

    Devices send and receive one message at a time inside a node; what leaves a node goes one after another over its link.
    Rounds are in step.
    """
    ready = defaultdict(float)
    for messages in rounds:
        link_free, start = {}, dict(ready)
        done = defaultdict(float)
        for sender, receiver, num_bytes in messages:
            begin = max(start.get(sender, 0.0), start.get(receiver, 0.0))
            if node_of(sender) == node_of(receiver):
                end = begin + inside.latency + num_bytes / inside.bandwidth
            else:
                begin = max(begin, link_free.get(node_of(sender), 0.0))
                link_free[node_of(sender)] = begin + num_bytes / between.bandwidth
                end = begin + num_bytes / between.bandwidth + between.latency
            done[sender], done[receiver] = max(done[sender], end), max(done[receiver], end)
        last = max(done.values())
        ready.update(dict.fromkeys(done, last))
    return max(ready.values(), default=0.0)


def ring(ranks, num_bytes, times=1):
    """Every rank passes a part on to the next, once around (reduce-scatter, all-gather) or twice (all-reduce)."""
    part = num_bytes / len(ranks)
    pairs = list(zip(ranks, ranks[1:] + ranks[:1], strict=True))
    return [[(a, b, part) for a, b in pairs] for _ in range(times * (len(ranks) - 1))]


def halving_and_doubling(ranks, num_bytes):
    """All-reduce of a power of two of ranks: parts are halved with partners ever nearer, then doubled again."""
    rounds, distance, part = [], len(ranks) // 2, num_bytes / 2
    while distance:
        rounds.append([(a, ranks[i ^ distance], part) for i, a in enumerate(ranks)])
        distance, part = distance // 2, part / 2
    return rounds + rounds[::-1]


def pairwise(ranks, num_bytes, node_of):
    """All-to-all: partners on the node first, then the others, one after another."""
    part, p = num_bytes / len(ranks), len(ranks)
    on_node = sum(node_of(rank) == node_of(ranks[0]) for rank in ranks)
    near = [[(r, r - r % on_node + (r + k) % on_node, part) for r in ranks] for k in range(1, on_node)]
    far = []
    for k in range(1, p // on_node):
        for j in range(on_node):
            far.append([(r, ((r // on_node + k) * on_node + (r + j) % on_node) % p, part) for r in ranks])
    return near + far


def at_the_same_time(*schedules):
    """Rounds of several groups side by side."""
    return [[message for messages in together for message in messages] for together in zip(*schedules, strict=True)]


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


@pytest.mark.parametrize("nodes", [1, 2, 3])
def test_all_to_all_takes_what_its_messages_take(nodes):
    ranks = list(range(4 * nodes))
    simulated = run(pairwise(ranks, MIB, node_of), node_of, INSIDE, BETWEEN)
    assert seconds("all_to_all_single", MIB, Group(4 * nodes, 4), MACHINE) == pytest.approx(simulated, rel=1e-9)


def test_92_nodes_of_8_by_hand():
    # 7 rounds of an eighth inside, 2 x ceil(log2 92) = 14 between with 2 x 91/92 of all 8 eighths, 7 inside.
    by_hand = 14 * 3e-6 + 2 * 7 / 8 * MIB / 5e10 + 14 * 2e-5 + 2 * 91 / 92 * MIB / 1e10
    assert seconds("all_reduce", MIB, Group(736, 8), MACHINE) == pytest.approx(by_hand, rel=1e-12)
