"""Tokens that come to each attention in its own order give what tokens in one order give."""

import pytest
import torch

from matey.config.choices import SCHEMES
from matey.model.blocks import Block, scheme_keys
from matey.model.prepare import prepare
from matey.model.sequence_group import RankGroup, SequenceGroup
from matey.model.turns import turned
from matey.tokens.segments import segment
from tests.support.models import make_batch, make_model

SETS = {"uniform": [(1, 1, 4, 4)], "mix": [(1, 1, 16, 16), (1, 1, 4, 4)], "mul": [(1, 1, 16, 16), (1, 1, 4, 4)]}


def of_layout(scheme, token_set):
    """The configuration of a model, and the layout of the tokens of two samples."""
    model = make_model(SETS[token_set], scheme=scheme, set=token_set)
    return model.config, model.tokens_of(make_batch()).layout


@pytest.mark.parametrize("token_set", SETS)
@pytest.mark.parametrize("scheme", SCHEMES.own)
def test_blocks_give_what_they_give_in_the_packed_order(scheme, token_set):
    config, layout = of_layout(scheme, token_set)
    keys = [key(layout) for key in scheme_keys(config.scheme, config.patches)]
    torch.manual_seed(0)
    blocks = [Block(24, 3, 48, len(keys)).double() for _ in range(2)]
    tokens = torch.randn(layout.num_tokens, 24, dtype=torch.float64, requires_grad=True)
    keep = torch.rand(len(keys) + 1, layout.num_tokens, 1, dtype=torch.float64)
    attentions = RankGroup().plan_block(keys)

    packed = tokens
    for block in blocks:
        packed = block(packed, SequenceGroup(), [segment(key) for key in keys], keep=list(keep))
    in_order = [attentions.at_residuals(factor)[number] for number, factor in enumerate(keep)]
    found = turned(tokens, attentions.enter)
    for block in blocks:
        found = block(found, SequenceGroup(), attentions.plans, attentions.within, in_order)
    found = turned(found, attentions.leave)

    weight = torch.randn_like(packed)
    assert torch.allclose(found, packed, atol=1e-12)
    ours, theirs = (torch.autograd.grad(values, tokens, weight)[0] for values in (found, packed))
    assert torch.allclose(ours, theirs, atol=1e-12)


@pytest.mark.parametrize("token_set", SETS)
@pytest.mark.parametrize("scheme", SCHEMES.own)
def test_an_attention_permutes_nothing(scheme, token_set):
    model = make_model(SETS[token_set], scheme=scheme, set=token_set)
    attentions = prepare([make_batch()], model.config).attentions
    assert all(plan.queries is plan.keys is plan.inverse is None for plan in attentions.plans)


def test_a_block_of_one_attention_changes_no_order():
    for token_set in SETS:
        model = make_model(SETS[token_set], scheme="vit", set=token_set)
        assert prepare([make_batch()], model.config).attentions.within == (None,)
