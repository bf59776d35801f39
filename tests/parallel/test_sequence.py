"""Sequence parallelism beside one process, on real ranks; groups of ranks, and what each plans to move."""

import math
import re

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from matey.benchmark.step import Case, run_point
from matey.model.attention import segment_attention
from matey.parallel.exchange import Topology, shares
from matey.parallel.sequence import dealt, heads_plan_moves, homes_of_segments, not_kept, plan_heads, plan_tokens
from matey.tokens.segments import segment
from tests.support.laws import PROVED
from tests.support.programs import cases_of, start_ranks

TOLERANCE = {"float64": 1e-10, "float32": 1e-5}


def compare(num_ranks, heads, dtype, every=1, network="matey"):
    """Run every so many of the cases on so many ranks, and hold each to the tolerance."""
    num_heads = len(heads.split(","))
    result = start_ranks(num_ranks, "-m", "tests.parallel.sequence_cases", heads, dtype, every, network, timeout=1500)
    assert "deprecated" not in result.stderr, result.stderr[-3000:]
    cases = dict(cases_of(result))
    kinds = {re.sub(r", \d+ (heads|tokens)", "", case) for case in cases if "heads" in case}
    first = num_ranks // 2 + (dtype == "float32")
    of_all = range(40)
    assert len(cases) == sum((at + head + first) % every == 0 for head in range(num_heads) for at in of_all) + 1
    assert len(kinds) == len(of_all) or num_heads < every, kinds
    assert all(map(math.isfinite, cases.values())), cases
    worst = max(cases, key=cases.get)
    PROVED.append(
        f"{network}, {num_ranks} ranks, {heads} heads, {dtype}: {len(cases)} cases, off by at most {cases[worst]:.1e} ({worst})"
    )
    assert cases[worst] < TOLERANCE[dtype], (worst, cases[worst])


# Every third case on two ranks, and every tenth on four, which share both heads and queries: all are slow tests.
@pytest.mark.parametrize("network", ["matey", "paper"])
@pytest.mark.parametrize(("num_ranks", "heads", "every"), [(2, "6", 3), (4, "6", 10)])
def test_ranks_of_a_group_give_outputs_loss_and_gradients_of_one_process(num_ranks, heads, every, network):
    compare(num_ranks, heads, "float64", every, network)


# Ranks share heads, queries or both, as the numbers of both have it: half of the cases on two, three and four ranks show each
# kind in the first two ways. On eight it is shown with one of the heads in float64, in which what is exact shows, and with
# another in float32, whose sums are longest there; these and those of four ranks show each kind in the third way.
@pytest.mark.slow
@pytest.mark.parametrize("network", ["matey", "paper"])
@pytest.mark.parametrize(
    ("num_ranks", "dtype", "every"),
    [
        (1, "float64", 1),
        (2, "float64", 2),
        (3, "float64", 2),
        (4, "float64", 2),
        (8, "float64", 3),
        (8, "float32", 3),
    ],
)
def test_any_heads_on_any_ranks_give_outputs_loss_and_gradients_of_one_process(num_ranks, dtype, every, network):
    compare(num_ranks, "3,6,12", dtype, every, network)


@pytest.mark.slow
@pytest.mark.processes
@pytest.mark.usefixtures("forked")
def test_ranks_that_share_queries_share_out_what_recomputed_blocks_keep():
    case = Case("Ti", batch=1, checkpoint_blocks="all")
    point = run_point(case, 1)
    one, two = (max(p["activation_bytes"]) for p in (point, run_point(case, 2)))
    keys_and_values = 2 * point["num_tokens"] * point["width"] * 4
    PROVED.append(f"recomputed blocks: activations of 2 ranks x 2 over one process's {2 * two / one:.2f}")
    # The block at work has keys and values of the whole sequence, and their gradients; were they kept, all 12 had.
    assert two < one / 2 + 3 * keys_and_values


def plans_of(key, size, heads):
    return [plan_tokens(key, Topology(rank, size, size, heads)) for rank in range(size)]


def test_segments_that_lie_on_one_rank_move_nothing():
    key = torch.arange(64) // 4
    for plan in plans_of(key, 4, 3):
        assert plan.num_moved == 0
        assert plan.segmentation.runs == ((4, 4, 4),)


@pytest.mark.parametrize("size", [2, 3, 8])
def test_every_segment_comes_whole_to_one_rank(size):
    key = torch.randint(0, 40, (203,), generator=torch.Generator().manual_seed(0))
    plans, slices = plans_of(key, size, 3), shares(len(key), size)
    arrived = []
    for rank, plan in enumerate(plans):
        assert plan.receive == tuple(other.send[rank] for other in plans)
        parts = [key[own][p.order].split(p.send)[rank] for own, p in zip(slices, plans, strict=True)]
        arrived.append(torch.cat(parts))
        lengths = [length for count, length, _ in plan.segmentation.runs for _ in range(count)]
        assert sorted(lengths) == arrived[-1].unique(return_counts=True)[1].sort().values.tolist()
        assert torch.equal(plan.order[plan.inverse], torch.arange(len(plan.order)))
    assert sum(len(keys.unique()) for keys in arrived) == len(key.unique())
    assert torch.equal(torch.cat(arrived).sort().values, key.sort().values)


def test_no_rank_gets_more_than_its_share_of_tokens_or_of_products():
    long = torch.cat([torch.zeros(100, dtype=torch.long), torch.arange(1, 101)])
    assert homes_of_segments(long, torch.arange(200) // 100, 2) is None
    # One segment of 16 tokens has as many products as 64 segments of 2, which have eight times its tokens.
    number = torch.cat([torch.zeros(16, dtype=torch.long), 1 + torch.arange(128) // 2])
    owner = torch.arange(144) // 72
    assert homes_of_segments(number, owner, 2) is None
    assert homes_of_segments(torch.arange(144) // 2, owner, 2) is not None


@pytest.mark.parametrize(
    ("heads", "size", "moved"), [(6, 2, 4 * 0.5), (12, 4, 4 * 0.75), (3, 2, 2), (6, 4, 4 * 0.5 + 2)]
)
def test_heads_and_queries_move_what_the_formula_says(heads, size, moved):
    topology = Topology(0, size, size, heads)
    assert heads_plan_moves(1000, topology) == pytest.approx(1000 * moved)


def test_queries_of_a_head_group_meet_all_keys():
    key = torch.zeros(10, dtype=torch.long)
    plan = plan_heads(key, Topology(3, 4, 4, 6))
    assert plan.counts == (2, 3) and plan.gathered == (5, 5)
    assert plan.segmentation.runs == ((1, 5, 10),)


@pytest.mark.parametrize("ways", [2, 3, 8])
def test_segments_are_dealt_out_evenly_wherever_they_lie(ways):
    number = torch.arange(1200) % 60  # of every segment all ranks have as much
    homes = homes_of_segments(number, torch.arange(1200) * ways // 1200, ways)
    assert torch.bincount(homes, minlength=ways).tolist() == pytest.approx([60 / ways] * ways, abs=1)
    lengths = torch.randint(5, 40, (300,), generator=torch.Generator().manual_seed(0))
    number = torch.arange(300).repeat_interleave(lengths)
    homes = homes_of_segments(number, torch.zeros_like(number), ways)  # the first rank has all
    shares = torch.zeros(ways).index_add(0, homes, lengths.float())
    assert shares.max() - shares.min() <= lengths.max()


def test_the_last_segments_go_to_the_rank_with_least_and_of_several_to_their_own():
    random = np.random.default_rng(0)
    for ways, most in ((2, 3), (5, 2), (8, 40)):
        shares, loads = random.integers(1, most, (60, 2)) / 64, random.integers(0, 2, (ways, 2)) / 64
        held, of_ranks, expected = random.integers(0, 3, (60, ways)), loads.tolist(), []
        for more, of_segment in zip(shares.tolist(), held.tolist(), strict=True):
            rank = min(range(ways), key=lambda r: (max(of_ranks[r]), -of_segment[r]))  # noqa: B023 (called at once)
            of_ranks[rank] = [load + each for load, each in zip(of_ranks[rank], more, strict=True)]
            expected.append(rank)
        assert dealt(loads, shares, held).tolist() == expected


@pytest.mark.parametrize(
    ("num_ranks", "size", "heads"),
    [(8, 8, 6), (736, 8, 12), (12, 6, 4), pytest.param(75_264, 8, 12, marks=pytest.mark.whole), (4, 1, 3)],
)
def test_groups_cut_the_ranks_and_each_rank_is_where_it_says(num_ranks, size, heads):
    topology = Topology(0, num_ranks, size, heads)
    for groups in (topology.sequence_groups(), topology.head_groups(), topology.query_groups()):
        assert sorted(rank for group in groups for rank in group) == list(range(num_ranks))
    for rank in (0, num_ranks // 2, num_ranks - 1):
        own = Topology(rank, num_ranks, size, heads)
        assert topology.sequence_groups()[own.data_rank][own.sequence_rank] == rank
    assert all(len(group) == topology.head_ways for group in topology.head_groups())
    assert all(len(group) == topology.query_ways for group in topology.query_groups())
    assert topology.head_ways * topology.query_ways == size and heads % topology.head_ways == 0


@pytest.mark.parametrize(("num_tokens", "ways"), [(0, 4), (3, 8), (1000, 7), (64, 8)])
def test_slices_follow_each_other_and_differ_by_a_token_at_most(num_tokens, ways):
    slices = shares(num_tokens, ways)
    assert slices[0].start == 0 and slices[-1].stop == num_tokens
    assert all(a.stop == b.start for a, b in zip(slices, slices[1:], strict=False))
    sizes = [part.stop - part.start for part in slices]
    assert max(sizes) - min(sizes) <= 1


def test_a_size_that_does_not_divide_the_ranks_names_those_that_do():
    with pytest.raises(ValueError, match="is 4, which does not divide the 6 ranks of this run; use one of 1, 2, 3, 6"):
        Topology(0, 6, 4, 3)


def gradients(q, gathered, key, gather=None):
    q, gathered = q.clone().requires_grad_(), gathered.clone().requires_grad_()
    if gather is None:
        segment_attention(q, *gathered.unbind(1), segment(key), "grouped").square().sum().backward()
        return q.grad, gathered.grad
    with not_kept(gathered, gather) as asked_for:
        attended = asked_for(segment_attention(q, *gathered.unbind(1), segment(key), "grouped"))
    attended.square().sum().backward()
    return q.grad, gathered.grad


# Of several segments in a call, the products of matrices save copies; of one, and of the fused kernel, views.
@pytest.mark.parametrize("backend", [SDPBackend.MATH, SDPBackend.FLASH_ATTENTION])
@pytest.mark.parametrize("lengths", [(6,), (3, 3), (2, 2, 1, 1)])
def test_every_rank_gathers_once_again_whatever_its_attention_saves(backend, lengths):
    key = torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths))
    q, gathered, times = torch.randn(6, 3, 4), torch.randn(6, 2, 3, 4), []

    def gather():
        times.append(1)
        return gathered.clone()

    with sdpa_kernel([backend, SDPBackend.MATH]):
        found, expected = gradients(q, gathered, key, gather), gradients(q, gathered, key)
    assert len(times) == 1
    assert all(torch.allclose(*pair, rtol=1e-5, atol=1e-6) for pair in zip(found, expected, strict=True))


def test_without_gradients_nothing_is_gathered_again():
    with torch.no_grad(), not_kept(torch.ones(2), lambda: pytest.fail("gathered")) as asked_for:
        values = torch.ones(3)
        assert asked_for(values) is values
