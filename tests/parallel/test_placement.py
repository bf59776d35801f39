"""Where ranks are, under srun's block and cyclic distributions."""

import os
import sys

import pytest

from matey.parallel.agreement import leaves_node
from matey.parallel.topology import Topology
from tests.support.laws import law
from tests.support.programs import cases_of, start

UNEVEN = [8] * 3 + [4]


def nodes_of_ranks(ranks_of_nodes, distribution):
    """The node of each rank as srun numbers tasks: ``block`` fills a node before the next, ``cyclic`` deals out in turns."""
    if distribution == "block":
        return [node for node, count in enumerate(ranks_of_nodes) for _ in range(count)]
    turns = range(max(ranks_of_nodes))
    return [node for turn in turns for node, count in enumerate(ranks_of_nodes) if turn < count]


def local_ranks(nodes):
    """The number of each rank among those of its node, and how many there are."""
    seen, local = {}, []
    for node in nodes:
        local.append(seen.get(node, 0))
        seen[node] = local[-1] + 1
    return [(number, seen[node]) for number, node in zip(local, nodes, strict=True)]


def ranks_that_object(nodes, size):
    local = local_ranks(nodes)
    return [rank for rank, own in enumerate(local) if leaves_node(Topology(rank, len(nodes), size, 12), *own)]


@law("num_nodes", [92, 9408], quick=[92])
@pytest.mark.parametrize("size", [2, 4, 8])
def test_numbered_in_blocks_every_sequence_group_is_on_one_node(num_nodes, size):
    nodes = nodes_of_ranks([8] * num_nodes, "block")
    assert len(nodes) in (736, 75_264)
    groups = Topology(0, len(nodes), size, 12).sequence_groups()
    assert all(len({nodes[rank] for rank in group}) == 1 for group in groups)
    assert ranks_that_object(nodes, size) == []


@law("num_nodes", [2, 92, 9408], quick=[2, 92])
@pytest.mark.parametrize("size", [2, 4, 8])
def test_dealt_out_in_turns_groups_leave_their_nodes_and_a_rank_notices(num_nodes, size):
    nodes = nodes_of_ranks([8] * num_nodes, "cyclic")
    assert nodes[:3] == [0, 1, 2 % num_nodes]
    assert len({nodes[rank] for rank in range(size)}) > 1
    assert ranks_that_object(nodes, size) != []


def test_nodes_with_fewer_ranks_are_filled_as_srun_fills_them():
    assert nodes_of_ranks(UNEVEN, "block") == [0] * 8 + [1] * 8 + [2] * 8 + [3] * 4
    assert nodes_of_ranks([2, 1, 3], "cyclic") == [0, 1, 2, 0, 2, 2]
    assert ranks_that_object(nodes_of_ranks(UNEVEN, "block"), 4) == []


def test_groups_that_no_node_can_hold_are_let_through():
    nodes = nodes_of_ranks([8] * 92, "block")
    assert ranks_that_object(nodes, 16) == []
    assert ranks_that_object([0] * 8 + [1] * 4, 3) == []


def test_groups_of_two_nodes_that_are_numbered_in_blocks_reach_over_two_nodes_only():
    nodes = nodes_of_ranks([8] * 92, "block")
    groups = Topology(0, 736, 16, 12).sequence_groups()
    assert all(len({nodes[rank] for rank in group}) == 2 for group in groups)


@pytest.fixture(scope="module")
def two_ranks():
    """How many cores there are, and what each of two real ranks makes of its cores and of placements."""
    result = start(
        [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", 2, "-m", "tests.parallel.placement_cases"]
    )
    return cases_of(result, "rank")


def test_a_placement_that_one_rank_objects_to_is_refused_on_all(two_ranks):
    # Dealt out in turns, rank 1 finds its group outside its node; rank 0 has nothing to object to.
    assert ranks_that_object([0, 1, 0, 1], 2) == [1, 2]
    assert len(two_ranks) == 2
    for _, seen in two_ranks:
        assert "Ranks are not numbered node by node, so sequence groups of 2 span several nodes" in seen["cyclic"]
        assert "srun --distribution=block, or mpirun --map-by slot" in seen["cyclic"]
        assert seen["block"] == seen["cyclic without groups"] == "taken"


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="binds ranks to cores")
def test_ranks_share_the_cores_that_several_may_run_on_and_keep_those_of_their_own(two_ranks):
    for num_cores, seen in two_ranks:
        assert (seen["one for both"], seen["all for both"], seen["one each"]) == (0.5, num_cores / 2, 1.0)
