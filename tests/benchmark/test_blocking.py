"""Calls that make the host of a GPU wait: that they are heard, and that a step has none."""

import json
from itertools import product

import pytest
import torch

from matey.benchmark.blocking import SCHEMES, TOKEN_SETS, BlockingCalls
from matey.benchmark.step import Case
from matey.parallel.meter import Late, sent
from tests.support.programs import cases_of, start_ranks

VALUES = torch.arange(6.0)


def hooked(x, hook):
    """Call a function in a backward pass."""
    weight = x.clone().requires_grad_()
    weight.register_hook(hook)
    (2 * weight).sum().backward()


WAIT = {
    "number": lambda x: x.sum().item(),
    "truth": lambda x: bool(x.any()),
    "list": lambda x: x.exp().tolist(),
    "array": lambda x: (x + 1).numpy(),
    "nonzero": lambda x: x.nonzero(),
    "mask": lambda x: x[x > 2],
    "unique": lambda x: x.unique(),
    "repeats": lambda x: x.repeat_interleave(x.long()),
    "list of numbers": lambda x: x * torch.tensor([1.0, 2, 3, 4, 5, 6]),
    "list, in a hook": lambda x: hooked(x, lambda gradient: gradient.tolist() and None),
    "main memory": lambda x: x.to("cpu"),
    "into the host's": lambda x: torch.empty(6).copy_(x),
    "the host's": lambda x: torch.arange(6.0).to(x.device),
    "the host's into its own": lambda x: x.clone().copy_(torch.arange(6.0)),
    "number of the host": lambda x: x.clone().__setitem__(0, torch.tensor(1.0)),
    "number made there": lambda x: torch.tensor(1.0, device=x.device),
    "unravelled": lambda x: torch.unravel_index(x.long(), (2, 3)),
}

GO_ON = {
    "arithmetic": lambda x: ((x * 2 + 1).clamp_min(3) ** 0.5).sum(),
    "index": lambda x: x[x.long()],
    "masks": lambda x: x.where(x > 2, 0).masked_fill(x > 3, 1),
    "made there": lambda x: x + torch.arange(6, device=x.device),
    "of the host": lambda x: torch.arange(6).nonzero().tolist(),
    "within the host": lambda x: torch.empty(6).copy_(torch.arange(6.0).to("cpu")),
    "within the device": lambda x: torch.empty(6, device=x.device).copy_(x.to(x.device)),
    "later": lambda x: torch.empty(6).copy_(x, non_blocking=True).tolist(),
    "number assigned": lambda x: x.clone().__setitem__(0, 1.0),
    "type": lambda x: x.to(torch.float64),
    "read later": lambda x: Late(x.sum()).read(),
    "sent": lambda x: sent([1.0, 2.0], x.device),
}


def number_of_calls(call):
    calls = BlockingCalls([VALUES])
    with calls:
        call(VALUES)
    calls.mark("call")
    return calls.number("call")


@pytest.mark.parametrize("name", WAIT)
def test_a_call_that_has_to_know_values_or_copies_them_is_counted(name):
    assert number_of_calls(WAIT[name]) >= 1


@pytest.mark.parametrize("name", GO_ON)
def test_a_call_that_a_device_can_be_left_alone_with_is_not_counted(name):
    assert number_of_calls(GO_ON[name]) == 0


def test_a_gradient_that_waits_is_heard_and_its_line_is_named():
    weight = torch.ones(6, requires_grad=True)
    weight.register_hook(lambda gradient: gradient if gradient.sum() > 0 else -gradient)
    calls = BlockingCalls([weight])
    with calls:
        (weight * 2).sum().backward()
    calls.mark("backward")
    assert calls.where["backward"] == {"_local_scalar_dense elsewhere": 1}


def points(num_ranks, cases):
    by_loss = {"nrmse": cases, "gradient": cases[:2]}
    of_losses = {loss: [case.to_json() for case in chosen] for loss, chosen in by_loss.items()}
    settings = {"cases": of_losses, "stage": 1}
    result = start_ranks(num_ranks, "-m", "matey.benchmark.blocking", json.dumps(settings))
    return cases_of(result, "point")


# Every scheme with a token set, and every token set with a scheme.
CASES = [
    Case("micro", scheme=scheme, tokens=tokens, patches=patches, grid=(32, 32), frames=2, fields=2)
    for scheme, (tokens, patches) in product(SCHEMES, TOKEN_SETS.items())
][::4]


@pytest.mark.parametrize("num_ranks", [1, 2])
def test_forward_and_backward_wait_for_nothing_and_a_step_at_most_three_times(num_ranks):
    found = points(num_ranks, CASES)
    assert len(found) == len(CASES) + 2 and {point["ranks"] for point in found} == {num_ranks}
    for point in found:
        assert point["forward"] == point["backward"] == 0, point
        assert point["step"] <= 3, point
