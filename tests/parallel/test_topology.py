"""Groups of ranks.

Gathered keys and values that the backward pass gathers again.
"""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from matey.model.attention import segment_attention
from matey.parallel.exchange import Topology, shares
from matey.parallel.sequence import not_kept
from matey.tokens.segments import segment


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


@pytest.mark.parametrize("heads", [3, 6, 12])
@pytest.mark.parametrize("size", [1, 2, 3, 4, 8])
def test_heads_and_queries_share_out_any_number_of_ranks(heads, size):
    topology = Topology(0, size, size, heads)
    assert topology.head_ways * topology.query_ways == size
    assert heads % topology.head_ways == 0


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
@pytest.mark.parametrize("lengths", [(6,), (3, 3), (4, 2), (2, 2, 1, 1)])
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
