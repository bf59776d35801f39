"""Segments of equal keys."""

import pytest
import torch

from matey.tokens.segments import segment


def test_keys_that_lie_together_need_no_order():
    segmentation = segment(torch.tensor([0, 0, 1, 1, 5, 5]))
    assert segmentation.queries is None and segmentation.keys is None and segmentation.inverse is None
    assert segmentation.runs == ((3, 2, 2),)


def test_order_brings_equal_keys_together_and_inverse_undoes_it():
    key = torch.tensor([2, 0, 1, 0, 2, 2, 1, 0])
    segmentation = segment(key)
    assert torch.equal(key[segmentation.queries][segmentation.inverse], key)
    assert torch.equal(segmentation.queries, segmentation.keys)
    packed = key[segmentation.queries]
    assert torch.unique_consecutive(packed).numel() == key.unique().numel()
    assert sum(count * length for count, length, _ in segmentation.runs) == len(key)


def test_segments_of_one_length_far_apart_become_one_run():
    key = torch.repeat_interleave(torch.arange(6), torch.tensor([2, 3, 2, 3, 2, 3]))
    segmentation = segment(key)
    assert segmentation.runs == ((3, 2, 2), (3, 3, 3))
    assert torch.unique_consecutive(key[segmentation.queries]).numel() == 6


def test_offsets_are_where_segments_begin():
    segmentation = segment(torch.tensor([0, 0, 1, 2, 2, 2]), slice(1, 5))
    assert segmentation.runs == ((1, 1, 2), (1, 1, 1), (1, 2, 3))
    assert segmentation.offsets.tolist() == [[0, 1, 2, 4], [0, 2, 3, 6]]


@pytest.mark.parametrize("bounds", [(0, 3), (2, 7), (5, 9), (4, 4)])
def test_queries_of_a_slice_meet_all_keys_of_their_segments_and_no_others(bounds):
    key = torch.tensor([3, 0, 0, 3, 1, 3, 2, 2, 0])
    queries = slice(*bounds)
    segmentation = segment(key, queries)
    own = key[queries] if segmentation.queries is None else key[queries][segmentation.queries]
    others = key if segmentation.keys is None else key[segmentation.keys]
    query = other = 0
    for count, num_queries, num_keys in segmentation.runs:
        for _ in range(count):
            (value,) = own[query : query + num_queries].unique()
            assert (others[other : other + num_keys] == value).all() and num_keys == (key == value).sum()
            query, other = query + num_queries, other + num_keys
    assert query == queries.stop - queries.start
