"""Sums are added up in one order, however many threads there are: a run gives the same losses when it is repeated."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.support.models import make_batch, make_model


class Indices(TorchDispatchMode):
    """Notes where what is added up at an index has its places."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket is torch.ops.aten.index_put and args[3]:
            self.found.append(torch.stack([index.flatten() for index in args[1] if index is not None], dim=1))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("options", [{}, {"scheme": "avit"}, {"network": "paper"}])
def test_no_gradient_is_added_up_at_an_index_where_threads_may_meet(options):
    loss = make_model(set="mix", **options)(make_batch()).loss
    with Indices() as indices:
        loss.backward()
    assert all(len(index.unique(dim=0)) == len(index) for index in indices.found)
