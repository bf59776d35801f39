"""Tokens that come to each attention in its own order give what tokens in one order give."""

import torch

from matey.config.choices import SCHEMES
from matey.model.blocks import Block, scheme_keys
from matey.model.prepare import prepare
from matey.model.sequence_group import BlockPlan, RankGroup, SequenceGroup, reordered
from matey.tokens.segments import segment
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


@law(("scheme", "case"), CASES, quick=QUICK)
def test_every_attention_meets_its_segments_side_by_side(scheme, case):
    keys = keys_of(scheme, case)
    plan = RankGroup().plan_block(keys)
    place = reordered(torch.arange(len(keys[0])), plan.enter)
    for key, change, attention in zip(keys, plan.within, plan.attentions, strict=True):
        place = reordered(place, change)
        lengths = [length for count, length, _ in attention.runs for _ in range(count)]
        segments = key[place].split(lengths)
        assert all((each == each[0]).all() for each in segments) and len(segments) == len(key.unique())
    assert reordered(place, plan.leave).equal(torch.arange(len(place)))


def test_gradients_of_gradients_are_brought_back_as_well():
    plan = RankGroup().plan_block([torch.tensor([0, 0, 1, 1, 2]), torch.tensor([1, 0, 1, 0, 1])])
    tokens = torch.randn(5, 2, dtype=torch.float64, requires_grad=True)
    # A product with each row's place makes the second derivative depend on the order.
    weight = torch.arange(1.0, 6.0, dtype=torch.float64)[:, None]
    for change in (plan.enter, plan.leave, *plan.within):
        assert torch.autograd.gradgradcheck(lambda values, by: weight * reordered(values**3, by), (tokens, change))


def test_one_attention_in_a_block_changes_no_order_inside():
    for case in SETS:
        assert RankGroup().plan_block(keys_of("vit", case)).within == (None,)
