"""Rotary positions: queries and keys are turned by the places of their tokens, so that attention sees how far apart these are.

After Su et al. 2021 (arXiv:2104.09864), with channels for each axis as in Heo et al. 2024 (arXiv:2403.13298). Departure: places
are centres in the unit domain instead of numbers of patches, since tokens have several sizes; wavelengths are those of the
position embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from matey.model.block_plan import BlockPlan
from matey.model.configuration import MateyConfig
from matey.model.embedding import PositionEmbedding
from matey.tokens.patches import long_axes
from matey.tokens.positions import phases
from matey.tokens.schemes import Key
from matey.tokens.segments import place_key


def rotation_of(centre: Tensor, config: MateyConfig, dtype: torch.dtype) -> Tensor:
    """Return the cosine and sine of each angle by which a token's queries and keys are turned.

    Args:
        centre: ``(n, 4)``, the centres of tokens along t, z, y, x in the unit domain.
        config: the model's configuration. Axes along which a patch has several cells share out the pairs of channels evenly.
        dtype: type of the result.

    Returns:
        ``(n, 2, d / 2)``, rounded down; pairs that are left over are not turned.
    """
    axes, num_pairs = long_axes(config.patches), config.width // config.num_heads // 2
    of_axis = num_pairs // len(axes) if axes else 0
    angles = [phases(centre[:, axis], PositionEmbedding.SHORTEST, PositionEmbedding.LONGEST, of_axis) for axis in axes]
    left_over = centre.new_zeros(len(centre), num_pairs - of_axis * len(axes))
    angle = torch.cat([*angles, left_over], dim=1)
    return torch.stack([angle.cos(), angle.sin()], dim=1).to(dtype)


def rotations_of(rotation: Tensor, keys: Sequence[Key], plan: BlockPlan) -> list[Tensor | None]:
    """Return tokens' rotations for each attention of a block, in its order; None where it is among tokens of one place.

    These are turned alike, which changes no product.
    """
    orders = plan.at_residuals(rotation)[:-1]
    return [None if key is place_key else order for key, order in zip(keys, orders, strict=True)]


def turned(qkv: Tensor, rotation: Tensor) -> Tensor:
    """Turn queries and keys; values stay as they are.

    Args:
        qkv: queries, keys and values ``(n, 3, h, d)``.
        rotation: cosines and sines ``(n, 2, d / 2)``, see `rotation_of`; channel ``c`` makes a pair with ``c + d / 2``.

    Returns:
        ``(n, 3, h, d)``.
    """
    found: Tensor = _Turned.apply(qkv, rotation[:, 0, None, None], rotation[:, 1, None, None])
    return found


class _Turned(Function):
    """One copy and four passes over queries and keys. Attention keeps the copy, so that ``qkv`` need not be kept beside it."""

    @staticmethod
    def forward(ctx: Any, qkv: Tensor, cos: Tensor, sin: Tensor) -> Tensor:  # noqa: ANN401
        ctx.cos, ctx.sin = cos, sin
        result = qkv.clone()
        (first, second), (to_first, to_second) = _pairs(qkv, cos.shape[-1]), _pairs(result, cos.shape[-1])
        to_first.mul_(cos).addcmul_(second, sin, value=-1)
        to_second.mul_(cos).addcmul_(first, sin)
        return result

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:  # noqa: ANN401
        # Differentiable again: `once_differentiable` would let `torch.autograd.grad` leave out a part of a second derivative.
        return _Turned.apply(gradient, ctx.cos, -ctx.sin), None, None


def _pairs(qkv: Tensor, num_pairs: int) -> tuple[Tensor, Tensor]:
    """Return views of both channels of each pair of queries and keys."""
    return qkv[:, :2, :, :num_pairs], qkv[:, :2, :, num_pairs : 2 * num_pairs]
