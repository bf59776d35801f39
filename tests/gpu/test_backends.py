"""Every backend of attention beside dense attention under a mask, in all precisions that it serves."""

from importlib.util import find_spec

import pytest
import torch

from matey.model.attention import MOST_SEGMENTS, segment_attention
from matey.tokens.segments import segment
from tests.support.laws import PROVED, law

TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2}
KEYS = {
    "one segment": torch.zeros(96, dtype=torch.long),
    "equal": torch.arange(96) // 8,
    "scattered": torch.arange(96) % 7,
    "ragged": (torch.arange(96).double().sqrt() * 1.7).long(),
}


def backends(device, dtype):
    """Return the backends that serve a device and a precision, as far as they are installed."""
    if device == "cpu" or dtype == torch.float32:
        return ["grouped"]
    return ["grouped", "varlen", *(["flash_attn"] if find_spec("flash_attn") else [])]


def outputs_and_gradients(attend, q, k, v):
    q, k, v = (x.detach().requires_grad_() for x in (q, k, v))
    attended = attend(q, k, v)
    return [attended, *torch.autograd.grad(attended.float().square().sum(), (q, k, v))]


def dense(key):
    """Return dense attention in float64, masked by a key."""

    def attend(q, k, v):
        q, k, v = (x.double() for x in (q, k, v))
        scores = torch.einsum("nhd,mhd->hnm", q, k) / q.shape[-1] ** 0.5
        return torch.einsum("hnm,mhd->nhd", scores.masked_fill(key[:, None] != key, -torch.inf).softmax(-1), v)

    return attend


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("name", KEYS)
def test_outputs_and_gradients_are_those_of_dense_attention(device, dtype, name):
    torch.manual_seed(0)
    key = KEYS[name].to(device)
    q, k, v = (torch.randn(len(key), 3, 64, device=device).to(dtype) for _ in range(3))
    expected, segmentation = outputs_and_gradients(dense(key), q, k, v), segment(key)
    for backend in backends(device, dtype):
        ours = outputs_and_gradients(lambda *x: segment_attention(*x, segmentation, backend), q, k, v)  # noqa: B023
        off = max(((a - b).norm() / b.norm()).item() for a, b in zip(ours, expected, strict=True))
        PROVED.append(f"{device}, {backend}, {dtype}, {name}: off by {off:.1e} of dense attention")
        assert off < TOLERANCE[dtype], backend


@law("lengths", [(1, 1), (1, 2)], quick=[(1, 2)], ids=["equal", "unequal"])
def test_more_segments_than_a_grid_has_are_attended_to(device, lengths):
    """Of many segments of one or two tokens; those of one token give its value back."""
    long = torch.tensor(lengths).repeat(MOST_SEGMENTS // 2 + 100)
    key = torch.arange(len(long)).repeat_interleave(long).to(device)
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    q, k, v = (torch.randn(len(key), 1, 16, device=device).to(dtype) for _ in range(3))
    for backend in backends(device, dtype):
        attended, _, _, gradient = outputs_and_gradients(
            lambda *x: segment_attention(*x, segment(key), backend),  # noqa: B023
            q,
            k,
            v,
        )
        alone = (long == 1).repeat_interleave(long).to(device)
        assert torch.equal(attended[alone], v[alone]) and gradient.isfinite().all(), backend
