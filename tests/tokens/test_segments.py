"""Segments of equal keys."""

import torch

from matey.tokens.segments import segment


def test_keys_that_lie_together_need_no_order():
    segmentation = segment(torch.tensor([0, 0, 1, 1, 5, 5]))
    assert segmentation.order is None and segmentation.inverse is None
    assert segmentation.runs == ((3, 2),)


def test_order_brings_equal_keys_together_and_inverse_undoes_it():
    key = torch.tensor([2, 0, 1, 0, 2, 2, 1, 0])
    segmentation = segment(key)
    assert torch.equal(key[segmentation.order][segmentation.inverse], key)
    packed = key[segmentation.order]
    assert torch.unique_consecutive(packed).numel() == key.unique().numel()
    assert sum(count * length for count, length in segmentation.runs) == len(key)


def test_segments_of_one_length_far_apart_become_one_run():
    key = torch.repeat_interleave(torch.arange(6), torch.tensor([2, 3, 2, 3, 2, 3]))
    segmentation = segment(key)
    assert segmentation.runs == ((3, 2), (3, 3))
    assert torch.unique_consecutive(key[segmentation.order]).numel() == 6
