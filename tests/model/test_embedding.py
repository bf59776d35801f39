"""Rotary positions: what they turn, and what attention sees of them."""

import pytest
import torch

from matey.model.attention import turned
from matey.model.embedding import rotation_of, rotations_of
from matey.model.prepare import prepare
from tests.support.models import make_batch, make_config, make_model

PATCHES = ((1, 1, 16, 16), (1, 1, 4, 4))
CONFIG = make_config(PATCHES, width=96, num_heads=3)


def scores(queries, keys, centre, config=CONFIG):
    """The product of every query with every key ``(h, n, n)``, once they are turned."""
    qkv = torch.stack([queries, keys, torch.zeros_like(keys)], dim=1)
    q, k, _ = turned(qkv, rotation_of(centre, config, queries.dtype)).unbind(1)
    return torch.einsum("m h d, n h d -> h m n", q, k)


def tokens(number=6, width=32):
    torch.manual_seed(0)
    return torch.randn(2, number, 3, width, dtype=torch.float64), torch.rand(number, 4, dtype=torch.float64)


def test_products_depend_on_distances_alone():
    (queries, keys), centre = tokens()
    here = scores(queries, keys, centre)
    assert torch.allclose(here, scores(queries, keys, centre + torch.tensor([0.3, 0.1, 0.7, -0.2])), atol=1e-12)
    apart = centre.clone()
    apart[0, 3] += 0.1
    assert not torch.allclose(here, scores(queries, keys, apart))


def test_along_an_axis_of_single_cells_nothing_is_turned():
    (queries, keys), centre = tokens()
    elsewhere = centre * torch.tensor([3.0, 5.0, 1.0, 1.0])
    assert scores(queries, keys, centre).equal(scores(queries, keys, elsewhere))
    space = make_config(((1, 4, 4, 4),), width=96)
    assert not scores(queries, keys, centre, space).equal(scores(queries, keys, elsewhere, space))


@pytest.mark.parametrize(
    ("scheme", "turning"), [("vit", [True]), ("svit", [False, True]), ("avit", [False, True, True])]
)
def test_attention_among_tokens_of_one_place_is_not_turned(scheme, turning):
    model, batch = make_model(PATCHES, scheme=scheme), make_batch(dtype=torch.float64)
    prepared = prepare([batch], model.config)
    rotation = rotation_of(prepared.tokens.layout.centre, model.config, torch.float64)
    found = rotations_of(rotation, model.keys, prepared.block_plan)
    assert [each is not None for each in found] == turning
    forecast = model.predict(batch)
    all_turned = [rotation if order is None else rotation[order] for order in prepared.block_plan.orders]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("matey.model.matey.rotations_of", lambda *_: all_turned)
        difference = (model.predict(batch) - forecast).abs().max()
    still = make_model(PATCHES, scheme=scheme, rotary=False)
    still.load_state_dict(model.state_dict())
    assert difference < 1e-9 < 1e-4 < (still.predict(batch) - forecast).abs().max()  # angles are in float32


def test_values_and_lengths_stay_as_they_are():
    (queries, keys), centre = tokens()
    qkv = torch.stack([queries, keys, keys], dim=1)
    found = turned(qkv, rotation_of(centre, CONFIG, qkv.dtype))
    assert found[:, 2].equal(keys) and torch.allclose(found.norm(dim=-1), qkv.norm(dim=-1), atol=1e-12)


@pytest.mark.parametrize("width", [2, 3, 5, 8])
def test_channels_without_a_pair_or_an_axis_stay_as_they_are(width):
    (queries, keys), centre = tokens(width=width)
    qkv = torch.stack([queries, keys, keys], dim=1)
    rotation = rotation_of(centre, make_config(PATCHES, width=3 * width * 4, num_heads=12), qkv.dtype)
    assert rotation.shape == (6, 2, width // 2)
    found = turned(qkv, rotation)
    still = width // 2 % 2 + width % 2 if width > 3 else width  # a pair for each of two axes, or none
    assert (found == qkv).all(dim=(0, 1, 2)).sum() >= still and torch.allclose(found.norm(dim=-1), qkv.norm(dim=-1))


def test_gradients_and_their_gradients_are_those_of_the_turn():
    (queries, keys), centre = tokens(width=6)
    qkv = torch.stack([queries, keys, keys], dim=1).requires_grad_()
    rotation = rotation_of(centre, make_config(PATCHES, width=72, num_heads=12), qkv.dtype)
    assert torch.autograd.gradcheck(lambda values: turned(values, rotation) ** 2, (qkv,))
    assert torch.autograd.gradgradcheck(lambda values: turned(values, rotation) ** 2, (qkv,))
