"""A layer of a local network: products of window sums of features, mixed, and added to the features of each cell.

    features --> bounded --> window --> p, q --> p (a q + o), mixed --> + --> features
        '------------------- inside --------------------------------'

On small grids and on CPUs a layer takes the time of reading and writing its values, so there are as few passes over them as
possible. Both backward passes recompute what follows from a few values of a cell, so that less is kept in memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

from matey.model.convolution import inner
from matey.model.first_derivatives import first_only_of_local


def bounded(values: Tensor, step: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Scale the features of each cell to a mean square below one; small features stay nearly as they are.

    Otherwise products of products would grow without limit on inputs far from the training data.

    Args:
        values: features ``(b, c, z, y, x)``, fastest with the features of a cell side by side in memory.
        step: cells ``z, y, x`` by which a window reaches around its central cell.

    Returns:
        The bounded features, and the given features without ``step`` cells on each side.
    """
    return _Bounded.apply(values, tuple(step))


def add_products(values: Tensor, factors: Tensor, scale: Tensor, offset: Tensor, mix: Tensor) -> Tensor:
    """Return ``values + mix p (scale q + offset)``.

    Args:
        values: features ``(b, c, z, y, x)``.
        factors: ``(b, 2 c, z, y, x)``, first all ``p``, then all ``q``.
        scale: factor ``(b, c)`` of the ``q`` of each sample.
        offset: constant ``(b, c)`` that is added to the scaled ``q``.
        mix: matrix ``(c, c)``.
    """
    found: Tensor = _AddProducts.apply(values, factors, scale, offset, mix)
    return found


class _Bounded(Function):
    """See `bounded`: ``y = r x`` with ``r = (1 + x x / c)^(-1/2)``, whose gradient is ``r g - r^3 (g x) x / c``."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, step: tuple[int, ...]) -> tuple[Tensor, Tensor]:  # noqa: ANN401
        x = values.movedim(1, -1)
        ratio = (1 + torch.linalg.vecdot(x, x).unsqueeze(-1) / x.shape[-1]).rsqrt()
        ctx.save_for_backward(values, ratio)
        ctx.step = step
        return (x * ratio).movedim(-1, 1), inner(values, step)

    @staticmethod
    @first_only_of_local
    def backward(ctx: Any, of_bounded: Tensor, of_inside: Tensor) -> tuple[Tensor, None]:  # noqa: ANN401
        values, ratio = ctx.saved_tensors
        x, gradient = values.movedim(1, -1), of_bounded.movedim(1, -1)
        along = torch.linalg.vecdot(gradient, x).unsqueeze(-1) * (ratio**3 / -x.shape[-1])
        of_values = (gradient * ratio).addcmul_(x, along).movedim(-1, 1)
        inner(of_values, ctx.step).add_(of_inside)
        return of_values, None


class _AddProducts(Function):
    """See `add_products`."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, factors: Tensor, scale: Tensor, offset: Tensor, mix: Tensor) -> Tensor:  # noqa: ANN401
        ctx.save_for_backward(factors, scale, offset, mix)
        p, q = factors.movedim(1, -1).chunk(2, dim=-1)
        products = _scaled(q, scale, offset).mul_(p)
        return values + F.linear(products, mix).movedim(-1, 1)

    @staticmethod
    @first_only_of_local
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:  # noqa: ANN401
        factors, scale, offset, mix = ctx.saved_tensors
        p, q = factors.movedim(1, -1).chunk(2, dim=-1)
        of_factors = torch.empty_like(factors)
        of_p, of_q = of_factors.movedim(1, -1).chunk(2, dim=-1)
        scaled, of_mixed = _scaled(q, scale, offset), gradient.movedim(1, -1)
        of_products = of_mixed @ mix
        of_mix = of_mixed.flatten(0, -2).mT @ (p * scaled).flatten(0, -2)
        torch.mul(of_products, scaled, out=of_p)
        of_scaled = of_products.mul_(p)
        torch.mul(of_scaled, _to_cells(scale), out=of_q)
        of_offset = of_scaled.sum(dim=(1, 2, 3))
        of_scale = scaled.copy_(q).mul_(of_scaled).sum(dim=(1, 2, 3))
        return gradient, of_factors, of_scale, of_offset, of_mix


def _scaled(q: Tensor, scale: Tensor, offset: Tensor) -> Tensor:
    return torch.addcmul(_to_cells(offset), q, _to_cells(scale))


def _to_cells(of_samples: Tensor) -> Tensor:
    """Return numbers per sample ``(b, c)`` as ``(b, 1, 1, 1, c)``, which broadcasts over the cells."""
    return of_samples[:, None, None, None]
