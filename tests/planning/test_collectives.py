"""The alpha-beta model beside messages and bytes counted by hand."""

import pytest

from matey.planning.estimate import Group, seconds
from matey.planning.machine import Link, load_machine

INSIDE, BETWEEN = Link(latency=3e-6, bandwidth=5e10), Link(latency=2e-5, bandwidth=1e10)
MACHINE = load_machine("frontier").model_copy(update={"inside": INSIDE, "between": BETWEEN})
MIB = 2.0**20


@pytest.mark.parametrize(
    ("kind", "group", "inside", "between"),
    [
        # Round the ring once, with a third of the bytes each time, and twice, with an eighth.
        ("reduce_scatter_tensor", Group(3, 3), (2, 2 / 3), (0, 0)),
        ("all_reduce", Group(8, 8), (14, 14 / 8), (0, 0)),
        # Each of the others' inputs comes by.
        ("all_gather_into_tensor", Group(4, 4), (3, 3), (0, 0)),
        # Of twelve ranks three partners are on the node; the link of a node carries what its four ranks have for eight others.
        ("all_to_all_single", Group(12, 4), (3, 3 / 12), (8, 4 * 8 / 12)),
        # 7 rounds of an eighth inside, 2 x ceil(log2 92) = 14 between with 2 x 91/92 of all 8 eighths, 7 inside.
        ("all_reduce", Group(736, 8), (14, 14 / 8), (14, 2 * 91 / 92)),
    ],
)
def test_a_collective_takes_its_messages_and_its_bytes_over_the_bandwidth(kind, group, inside, between):
    by_hand = sum(
        n * link.latency + share * MIB / link.bandwidth
        for (n, share), link in zip((inside, between), (INSIDE, BETWEEN), strict=True)
    )
    assert seconds(kind, MIB, group, MACHINE) == pytest.approx(by_hand, rel=1e-12)
