"""The plan of a block: its attentions, and the order of the tokens in each, in which its segments lie side by side.

If the tokens stayed in one order, each attention would bring queries, keys and values into its own, and the result back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from matey.tokens.segments import Segmentation

Order = tuple[Tensor, Tensor]
"""An order of the tokens and its inverse, both ``(n,)``; None stands for that of the packed list."""


@dataclass(frozen=True)
class Reordering:
    """A change of the order of the tokens.

    Attributes:
        index: ``(n,)``, the earlier place of the token at each place.
        inverse: ``(n,)``, the place of the token from each earlier place.
    """

    index: Tensor
    inverse: Tensor

    def back(self) -> Reordering:
        """Return the change that undoes this one."""
        return Reordering(self.inverse, self.index)


@dataclass(frozen=True)
class BlockPlan:
    """The plans of a block's attentions, and the orders of the tokens in them.

    Attributes:
        attentions: the plan of each attention.
        orders: order of the tokens in each attention: their places ``(n,)`` in the packed list; None where it is that list.
        enter: change before the first block, from the packed list to the order of a block's last attention; None: no change.
        within: change before each attention of a block, from the order of the one before it; None: no change.
    """

    attentions: tuple[Any, ...]
    orders: tuple[Tensor | None, ...]
    enter: Reordering | None
    within: tuple[Reordering | None, ...]

    @classmethod
    def in_place(cls, plans: Sequence[Any]) -> BlockPlan:
        """Return the plan of attentions for which tokens stay in the order of the packed list."""
        none = (None,) * len(plans)
        return cls(tuple(plans), none, None, none)

    @property
    def leave(self) -> Reordering | None:
        """The change after the last block, back to the packed list."""
        return None if self.enter is None else self.enter.back()

    def at_residuals(self, values: Tensor) -> list[Tensor]:
        """Return values of the tokens ``(n, ...)`` in the order of each residual of a block: its attentions, then the MLP."""
        return [values if order is None else values[order] for order in (*self.orders, self.orders[-1])]


def in_order(segmentations: Sequence[Segmentation]) -> BlockPlan:
    """Return the plan of attentions within segmentations of all tokens, for which tokens come segment by segment."""
    orders = [_order(segmentation) for segmentation in segmentations]
    return BlockPlan(
        attentions=tuple(replace(each, queries=None, keys=None, inverse=None) for each in segmentations),
        orders=tuple(None if order is None else order[0] for order in orders),
        enter=_between(None, orders[-1]),
        within=tuple(_between(orders[number - 1], order) for number, order in enumerate(orders)),
    )


def reordered(tokens: Tensor, change: Reordering | None) -> Tensor:
    """Return the tokens ``(n, e)`` in another order."""
    if change is None:
        return tokens
    found: Tensor = _Reordered.apply(tokens, change.index, change.inverse)
    return found


def _order(segmentation: Segmentation) -> Order | None:
    if segmentation.queries is None or segmentation.inverse is None:
        return None
    return segmentation.queries, segmentation.inverse


def _between(earlier: Order | None, later: Order | None) -> Reordering | None:
    """Return the change between two orders."""
    if earlier is None or later is None:
        return Reordering(*later) if later else Reordering(*earlier).back() if earlier else None
    if torch.equal(earlier[0], later[0]):
        return None
    return Reordering(earlier[1][later[0]], later[1][earlier[0]])


class _Reordered(Function):
    """Rows by an index, whose gradient is rows by the inverse index, where PyTorch would add row by row into zeros."""

    @staticmethod
    def forward(ctx: Any, tokens: Tensor, index: Tensor, inverse: Tensor) -> Tensor:  # noqa: ANN401
        ctx.index, ctx.inverse = index, inverse
        return tokens.index_select(0, index)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:  # noqa: ANN401
        # Differentiable again: `once_differentiable` would let `torch.autograd.grad` leave out a part of a second derivative.
        return _Reordered.apply(gradient, ctx.inverse, ctx.index), None, None
