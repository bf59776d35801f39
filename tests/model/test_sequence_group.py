"""A rank's part of the tokens and of the prediction gives what one process gives."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from matey.config.schema import SCHEMES
from matey.model.blocks import Block, scheme_keys
from matey.model.prepare import prepare
from matey.model.sequence_group import BlockPlan, RankGroup, SequenceGroup, reordered
from matey.parallel.exchange import shares
from matey.tokens.segments import segment
from matey.train.loss import LossScale, training_loss
from tests.support.laws import law
from tests.support.models import VOCABULARY, make_batch, make_model

PLANE, SPACE = [(1, 1, 16, 16), (1, 1, 4, 4)], [(1, 8, 8, 8), (1, 4, 4, 4)]
SETS = {"uniform": ("uniform", PLANE[1:]), "mix": ("mix", PLANE), "mul": ("mul", PLANE), "space": ("mul", SPACE)}
CASES = [(scheme, case) for scheme in SCHEMES.own for case in SETS]
QUICK = [(scheme, case) for scheme, case in CASES if case in ("mul", "space")]


def model_and_batches(scheme, case):
    """A model, and batches of two systems on different grids."""
    token_set, patches = SETS[case]
    grids = ((8, 16, 24), (16, 8, 8)) if case == "space" else ((1, 32, 48), (1, 48, 16))
    batches = [make_batch(grid=grids[0]), make_batch("diffusion_reaction", VOCABULARY[1:], 2, 2, grids[1], seed=1)]
    return make_model(patches, scheme=scheme, set=token_set), batches


def keys_of(scheme, case):
    """The keys of the attentions, of the tokens of all batches."""
    model, batches = model_and_batches(scheme, case)
    layout = prepare(batches, model.config).tokens.layout
    return [key(layout) for key in scheme_keys(scheme, model.config.patches)]


@law(("scheme", "case"), CASES, quick=QUICK)
def test_blocks_give_what_they_give_in_the_packed_order(scheme, case):
    keys = keys_of(scheme, case)
    torch.manual_seed(0)
    blocks = [Block(24, 3, 48, len(keys)).double() for _ in range(2)]
    tokens = torch.randn(len(keys[0]), 24, dtype=torch.float64, requires_grad=True)
    keep = torch.rand(len(keys) + 1, len(keys[0]), 1, dtype=torch.float64)
    plan = RankGroup().plan_block(keys)

    packed = tokens
    for block in blocks:
        packed = block(packed, SequenceGroup(), BlockPlan.in_place([segment(key) for key in keys]), list(keep))
    found = reordered(tokens, plan.enter)
    for block in blocks:
        found = block(found, SequenceGroup(), plan, [plan.at_residuals(each)[i] for i, each in enumerate(keep)])
    found = reordered(found, plan.leave)

    weight = torch.randn_like(packed)
    assert torch.allclose(found, packed, rtol=0, atol=1e-12)
    ours, theirs = (torch.autograd.grad(values, tokens, weight)[0] for values in (found, packed))
    assert torch.allclose(ours, theirs, rtol=0, atol=1e-12)


def test_gradients_of_gradients_are_brought_back_as_well():
    plan = RankGroup().plan_block([torch.tensor([0, 0, 1, 1, 2]), torch.tensor([1, 0, 1, 0, 1])])
    tokens = torch.randn(5, 2, dtype=torch.float64, requires_grad=True)
    # A product with each row's place makes the second derivative depend on the order.
    weight = torch.arange(1.0, 6.0, dtype=torch.float64)[:, None]
    for change in (plan.enter, plan.leave, *plan.within):
        assert torch.autograd.gradgradcheck(lambda values, by: weight * reordered(values**3, by), (tokens, change))


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
