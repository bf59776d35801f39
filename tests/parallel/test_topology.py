"""Groups of ranks."""

import pytest

from matey.parallel.topology import Topology, shares


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
