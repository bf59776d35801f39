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


class OneOfMany(RankGroup):
    """One of several ranks, without the others, from which it gets nothing; it is not asked to attend."""

    def __init__(self, rank, ranks):
        self.rank, self.ranks = rank, ranks

    @property
    def size(self):
        return self.ranks

    @property
    def place(self):
        return self.rank

    def shard(self, num_tokens):
        return shares(num_tokens, self.ranks)[self.rank]

    def rank_of_tokens(self, num_tokens):
        lengths = torch.tensor([own.stop - own.start for own in shares(num_tokens, self.ranks)])
        return torch.arange(self.ranks).repeat_interleave(lengths)


class Alone(SequenceGroup):
    """The group of such a rank: tokens of others are zero."""

    def exchange_tokens(self, tokens, route):
        if route is None:
            return tokens
        received = tokens.new_zeros(sum(route.num_received), tokens.shape[1])
        return torch.nn.functional.embedding(route.order, torch.cat([tokens, received]))


def largest_after_the_blocks(batch, ranks, **settings):
    """Return the size of the largest tensor after the blocks, with loss and gradients, over that of the predicted frame."""
    model = make_model(dtype=torch.float32, num_blocks=1, **settings).train()
    model.blocks = torch.nn.ModuleList()
    model.sequence_group = Alone(ranks=OneOfMany(ranks // 2, ranks))
    with LargestTensor() as largest:
        model.norm.register_forward_hook(lambda *_: setattr(largest, "started", True))
        training_loss(model([batch]), model.sequence_group, {"shallow_water": LossScale()})[0].backward()
    return largest.values / batch.target[0].numel()


@law("grid", [(1, 128, 128), (1, 125, 128)], quick=[(1, 125, 128)])
@pytest.mark.parametrize("patches", [((1, 1, 8, 8),), ((1, 1, 16, 16), (1, 1, 8, 8))])
def test_a_rank_predicts_and_scores_its_box_without_a_frame(patches, grid):
    batch, paper = make_batch(num_samples=1, grid=grid), {"patches": patches, "network": "paper"}
    assert largest_after_the_blocks(batch, 16, **paper) < 0.2 and largest_after_the_blocks(batch, 1, **paper) > 1.9
    # Six features of the cells in a box, and of those around it that the last layers look at.
    assert (
        largest_after_the_blocks(batch, 16, patches=patches) < 1 < largest_after_the_blocks(batch, 1, patches=patches)
    )
