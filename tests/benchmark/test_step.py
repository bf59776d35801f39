"""Fields that steps are timed on, and calls that would make the host of a GPU wait, of which a step has none."""

import json
from itertools import product

import pytest
import torch

from matey.benchmark.step import Case
from tests.support.programs import cases_of, start_ranks
from tests.support.waiting import Waits


@pytest.mark.parametrize("grid", [(64, 64), (32, 32, 32)])
def test_all_sharp_spots_lie_where_the_field_is(grid):
    batch = Case(grid=grid, batch=8, fields=1, frames=1).make_batch()
    # The waves stay within 1; a spot adds 3.
    spots = (batch.history[:, 0, 0] > 1.5).flatten(1)
    assert spots.any(dim=1).all()
    if len(grid) == 2:
        assert spots.sum(dim=1).min() > 2 * 7  # a spot has 7 cells or more; some lie on each other, or at an edge


def hooked(x, hook):
    """Call a function in a backward pass."""
    weight = x.clone().requires_grad_()
    weight.register_hook(hook)
    (2 * weight).sum().backward()


@pytest.mark.parametrize(
    ("call", "number"),
    [
        (lambda x: x.sum().item(), 1),
        (lambda x: x[x > 2], 1),
        (lambda x: x.nonzero(), 1),
        (lambda x: x.exp().tolist(), 1),
        (lambda x: hooked(x, lambda gradient: gradient if gradient.sum() > 0 else -gradient), 1),
        (lambda x: x.where(x > 2, 0)[x.long()].sum(), 0),
    ],
)
def test_a_call_that_has_to_know_values_is_counted(call, number):
    with Waits() as waits:
        call(torch.arange(6.0))
    assert waits.calls.total() == number


CASES = [
    (Case("micro", scheme=scheme, tokens=tokens, patches=patches, grid=(32, 32), frames=2, fields=2).to_json(), loss)
    for (scheme, (tokens, patches)), loss in zip(
        product(("vit", "svit", "avit"), (("uniform", (8,)), ("mix", (16, 8)), ("mul", (16, 8)))),
        ("nrmse", "gradient", "balanced") * 3,
        strict=True,
    )
]


@pytest.mark.parametrize("num_ranks", [1, 2])
def test_forward_loss_and_backward_wait_for_nothing(num_ranks):
    cases = [CASES[index] for index in (0, 4, 8, 7)]  # every scheme, token set and loss
    assert cases_of(start_ranks(num_ranks, "-m", "tests.support.waiting", json.dumps(cases))) == [{}] * len(cases)
