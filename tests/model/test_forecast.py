"""A rank's part of the prediction."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from matey.model.sequence_group import RankGroup, SequenceGroup
from matey.parallel.topology import shares
from matey.train.loss import LossScale, training_loss
from tests.support.laws import law
from tests.support.models import make_batch, make_model


class LargestTensor(TorchDispatchMode):
    """Keeps the size of the largest floating-point storage that an operation made since `started`."""

    started, values = False, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        known = {value.untyped_storage().data_ptr() for value in args if isinstance(value, torch.Tensor)}
        for made in result if isinstance(result, tuple | list) else [result]:
            if isinstance(made, torch.Tensor) and made.is_floating_point() and self.started:
                storage = made.untyped_storage()
                if storage.data_ptr() not in known:
                    self.values = max(self.values, storage.nbytes() // made.element_size())
        return result


class BrickShare(RankGroup):
    """One of several ranks, without the others, which would add to its tiles; it is not asked to attend."""

    def __init__(self, rank, ranks):
        self.rank, self.ranks = rank, ranks

    def shard(self, num_tokens):
        return shares(num_tokens, self.ranks)[self.rank]


def largest_after_the_blocks(batch, ranks, **settings):
    """Return the size of the largest tensor of decoding, loss and their gradients, over that of the predicted frame."""
    model = make_model(dtype=torch.float32, num_blocks=1, **settings).train()
    model.blocks = torch.nn.ModuleList()
    model.sequence_group = SequenceGroup(ranks=BrickShare(ranks // 2, ranks))
    with LargestTensor() as largest:
        model.norm.register_forward_hook(lambda *_: setattr(largest, "started", True))
        training_loss(model([batch]), model.sequence_group, {"shallow_water": LossScale()})[0].backward()
    return largest.values / batch.target[0].numel()


@law("grid", [(1, 128, 128), (1, 125, 128)], quick=[(1, 125, 128)])
@pytest.mark.parametrize("patches", [((1, 1, 8, 8),), ((1, 1, 16, 16), (1, 1, 8, 8))])
def test_a_rank_decodes_and_scores_its_tokens_without_a_frame(patches, grid):
    batch = make_batch(num_samples=1, grid=grid)
    assert largest_after_the_blocks(batch, 16, patches=patches, local=0) < 0.75
    assert largest_after_the_blocks(batch, 1, patches=patches, local=0) > 2


def test_the_local_operator_runs_on_a_ranks_cells_and_makes_no_windows():
    batch = make_batch(num_samples=1, grid=(1, 128, 128))
    shared, whole = (largest_after_the_blocks(batch, ranks, patches=((1, 1, 8, 8),), local=16) for ranks in (16, 1))
    # What is seen in a cell, of one field, and the halo around a rank's box. Windows would be 9 * 16.
    assert 2 * 16 + 1 < whole < 1.1 * (2 * 16 + 1) and 16 * shared < 1.6 * (2 * 16 + 1)


def test_cells_that_are_not_own_do_not_count_whatever_is_in_them():
    batch = make_batch(num_samples=1, dtype=torch.float64)
    (forecast,) = make_model()([batch])
    own = torch.rand(forecast.own.shape, generator=torch.Generator().manual_seed(0)) < 0.5
    some = forecast._replace(own=own)
    wrong = some._replace(decoded=forecast.decoded.masked_fill(~own[:, None], torch.inf))
    assert torch.equal(wrong.errors(), forecast.errors() * own[:, None])
    assert torch.equal(wrong.frame(), some.frame()) and some.frame().count_nonzero() == own.sum()
