"""Windows on the last frames that are cut again in the backward pass."""

import pytest
import torch

from matey.model import windows as module
from matey.model.windows import Windows
from matey.tokens.patches import places

CELLS, HALO, NUM_FIELDS, WIDTH = (2, 2, 4), (1, 0, 2), 3, 5
GRID = (2, 3, 2, 2)  # samples and blocks


def frame(dtype=torch.float64):
    sides = [number * size + 2 * reach for number, size, reach in zip(GRID[1:], CELLS, HALO, strict=True)]
    return torch.randn(GRID[0], NUM_FIELDS, *sides, dtype=dtype)


def weights(dtype=torch.float64):
    return torch.randn(NUM_FIELDS, 4 * 2 * 8, WIDTH, dtype=dtype, requires_grad=True)


def around(frames):
    """Windows around some of the blocks in a box, and around none in another."""
    some, none = (places(torch.tensor(rows, dtype=torch.long), GRID) for rows in ([2, 3, 5, 11, 13, 17, 23], []))
    start = (0, *(-reach for reach in HALO))
    return Windows([frames, frames], [start, start], [some, none], CELLS, HALO)


def sums_and_gradients(windows, weight, *inputs):
    sums = windows.weighted_sums(weight)
    return [sums.detach(), *torch.autograd.grad(sums.square().sum(), [weight, *inputs])]


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("kept", [4, 4 * NUM_FIELDS * 64 * 3])  # one window at a time, and three
def test_windows_that_are_cut_again_give_the_same_sums_and_gradients(monkeypatch, dtype, kept):
    frames, weight = frame(torch.float64 if dtype == torch.float64 else torch.float32), weights(dtype)
    whole = sums_and_gradients(around(frames), weight)
    monkeypatch.setattr(module, "KEPT_AT_ONCE", kept)
    for ours, theirs in zip(sums_and_gradients(around(frames), weight), whole, strict=True):
        assert ours.dtype == dtype and torch.allclose(ours, theirs, rtol=1e-12 if dtype == torch.float64 else 1e-2)


def test_many_windows_are_not_kept_for_the_backward_pass(monkeypatch):
    frames, weight = frame(), weights()
    sizes = []
    for kept in (2**26, 4):
        monkeypatch.setattr(module, "KEPT_AT_ONCE", kept)
        saved = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda each, to=saved: to.append(each) or each, lambda each: each
        ):
            around(frames).weighted_sums(weight)
        sizes.append(max(each.numel() for each in saved if each.data_ptr() != frames.data_ptr()))
    assert sizes == [7 * NUM_FIELDS * 64, weight.numel()]


def test_frames_that_have_a_gradient_get_it_however_many_windows_there_are(monkeypatch):
    frames, weight = frame().requires_grad_(), weights()
    whole = sums_and_gradients(around(frames), weight, frames)
    monkeypatch.setattr(module, "KEPT_AT_ONCE", 4)
    again = sums_and_gradients(around(frames), weight, frames)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(again, whole, strict=True))
