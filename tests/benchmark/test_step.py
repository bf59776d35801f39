"""Calls that would make the host of a GPU wait, of which a step has none."""

import json

import pytest
import torch

from matey.benchmark.step import Case
from tests.support.programs import cases_of, start_ranks
from tests.support.waiting import Waits


@pytest.mark.parametrize(
    ("call", "number"),
    [
        (lambda x: x.sum().item(), 1),
        (lambda x: x.nonzero(), 1),
        (lambda x: x.where(x > 2, 0)[x.long()].sum(), 0),
    ],
)
def test_a_call_that_has_to_know_values_is_counted(call, number):
    with Waits() as waits:
        call(torch.arange(6.0))
    assert waits.calls.total() == number


CASES = [
    (Case("micro", scheme=scheme, tokens=tokens, patches=patches, grid=(32, 32), frames=2, fields=2).to_json(), loss)
    for scheme, tokens, patches, loss in (
        ("vit", "uniform", (8,), "nrmse"),
        ("svit", "mix", (16, 8), "gradient"),
        ("avit", "mul", (16, 8), "balanced"),
    )
]


@pytest.mark.parametrize("num_ranks", [1, 2])
def test_forward_loss_and_backward_wait_for_nothing(num_ranks):
    assert cases_of(start_ranks(num_ranks, "-m", "tests.support.waiting", json.dumps(CASES))) == [{}] * len(CASES)
