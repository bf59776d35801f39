"""The passes over the values of a layer, beside the plain formulas and gradients by differences."""

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck

from matey.model.convolution import inner
from matey.model.layer import add_products, bounded

GRIDS = [((1, 4, 3), (0, 1, 1)), ((3, 4, 3), (1, 1, 1)), ((1, 1, 4), (0, 0, 1))]


def draw(*shape):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(len(shape))).requires_grad_()


@pytest.mark.parametrize(("grid", "step"), GRIDS)
def test_features_are_bounded_with_the_gradient_of_differences(grid, step):
    values = draw(2, 3, *grid)
    features, inside = bounded(values, step)
    assert torch.allclose(features, values / (1 + values.square().mean(dim=1, keepdim=True)).sqrt(), rtol=1e-14)
    assert torch.equal(inside, inner(values, step))
    assert (bounded(1e6 * values, step)[0].square().mean(dim=1) <= 1).all()
    assert gradcheck(lambda each: bounded(each, step), [values])
    assert gradcheck(lambda each: bounded(each, step)[0], [values])
    assert gradcheck(lambda each: bounded(each, step)[1], [values])


@pytest.mark.parametrize("grid", [grid for grid, _ in GRIDS])
def test_products_are_added_with_the_gradients_of_differences(grid):
    values, factors, scale, offset, mix = draw(2, 3, *grid), draw(2, 6, *grid), draw(2, 3), draw(3, 2).T, draw(3, 3)
    p, q = factors.chunk(2, dim=1)
    products = p * (q * scale[..., None, None, None] + offset[..., None, None, None])
    plain = values + F.linear(products.movedim(1, -1), mix).movedim(-1, 1)
    assert torch.allclose(add_products(values, factors, scale, offset, mix), plain, rtol=1e-13)
    assert gradcheck(add_products, [values, factors, scale, offset, mix])
