"""Attention within segments."""

import pytest
import torch

from matey.model.attention import segment_attention
from matey.tokens.segments import segment

KEYS = {
    "one segment": torch.zeros(12, dtype=torch.long),
    "equal and in place": torch.arange(12) // 4,
    "equal and scattered": torch.arange(12) % 3,
    "ragged": torch.tensor([3, 3, 0, 7, 0, 3, 7, 7, 7, 1, 0, 3]),
    "single tokens": torch.arange(12).flip(0),
}


@pytest.mark.parametrize("name", KEYS)
def test_segments_equal_dense_attention_under_a_mask(name):
    key = KEYS[name]
    q, k, v = (torch.randn(12, 2, 8, dtype=torch.float64, requires_grad=True) for _ in range(3))
    scores = torch.einsum("nhd,mhd->hnm", q, k) / 8**0.5
    dense = torch.einsum("hnm,mhd->nhd", scores.masked_fill(key[:, None] != key, -torch.inf).softmax(-1), v)
    ours = segment_attention(q, k, v, segment(key))
    assert torch.allclose(ours, dense, atol=1e-12)
    weight = torch.randn_like(dense)
    ours_gradients = torch.autograd.grad((ours * weight).sum(), (q, k, v))
    for got, expected in zip(ours_gradients, torch.autograd.grad((dense * weight).sum(), (q, k, v)), strict=True):
        assert torch.allclose(got, expected, atol=1e-12)


def test_no_tokens_give_no_tokens():
    empty = torch.zeros(0, 2, 8)
    assert segment_attention(empty, empty, empty, segment(torch.zeros(0, dtype=torch.long))).shape == (0, 2, 8)
