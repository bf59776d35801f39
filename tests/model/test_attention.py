"""Attention within segments."""

import pytest
import torch

from matey.model.attention import choose_backend, segment_attention
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


@pytest.mark.parametrize("name", KEYS)
@pytest.mark.parametrize("queries", [slice(0, 5), slice(3, 12), slice(7, 7)])
def test_queries_of_a_slice_attend_to_all_keys_of_their_segments(name, queries):
    key = KEYS[name]
    q, k, v = (torch.randn(12, 2, 8, dtype=torch.float64) for _ in range(3))
    all_queries = segment_attention(q, k, v, segment(key))
    some = segment_attention(q[queries], k, v, segment(key, queries))
    assert torch.allclose(some, all_queries[queries], atol=1e-12)


def test_flash_attention_says_what_it_needs():
    q = torch.randn(4, 2, 8)
    with pytest.raises(ValueError, match="'varlen' needs a GPU and bfloat16 or float16, got torch.float32 on cpu"):
        segment_attention(q, q, q, segment(torch.zeros(4, dtype=torch.long)), "varlen")
    assert choose_backend("cpu", torch.bfloat16) == choose_backend("cuda", torch.float32) == "grouped"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="flash attention runs on GPUs only")
@pytest.mark.parametrize("name", KEYS)
def test_flash_attention_agrees_with_grouped_attention(name):
    q, k, v = (torch.randn(12, 2, 64, dtype=torch.bfloat16, device="cuda") for _ in range(3))
    segmentation = segment(KEYS[name].cuda())
    flash, grouped = (segment_attention(q, k, v, segmentation, backend) for backend in ("varlen", "grouped"))
    assert torch.allclose(flash.float(), grouped.float(), atol=2e-2)


def test_no_tokens_give_no_tokens():
    empty = torch.zeros(0, 2, 8)
    assert segment_attention(empty, empty, empty, segment(torch.zeros(0, dtype=torch.long))).shape == (0, 2, 8)
