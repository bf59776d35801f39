"""Gathered keys and values that the backward pass gathers again."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from matey.model.attention import segment_attention
from matey.parallel.sequence import not_kept
from matey.tokens.segments import segment


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
