"""The orders in which tokens pass through the blocks: the segments of each attention lie side by side when it comes.

Otherwise queries, keys, values and the result would each be brought into order and back, forward and backward.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from matey.tokens.segments import Segmentation

Order = tuple[Tensor, Tensor]
"""An order of the tokens and its inverse, both ``(n,)``; None stands for that of the packed list."""


@dataclass(frozen=True)
class Turn:
    """A change of the order of the tokens.

    Attributes:
        index: ``(n,)``, the earlier place of the token at each place.
        inverse: ``(n,)``, the place of the token from each earlier place.
    """

    index: Tensor
    inverse: Tensor

    def back(self) -> Turn:
        """Return the change that undoes this one."""
        return Turn(self.inverse, self.index)


@dataclass(frozen=True)
class Attentions:
    """The plans of a block's attentions, and the orders in which the tokens come to them.

    Attributes:
        plans: the plan of each attention.
        orders: order of the tokens in each attention: their places ``(n,)`` in the packed list; None where it is that list.
        enter: change before the first block, from the packed list to the order of a block's last attention; None: no change.
        within: change before each attention of a block, from the order of the one before it; None: no change.
    """

    plans: tuple[Any, ...]
    orders: tuple[Tensor | None, ...]
    enter: Turn | None
    within: tuple[Turn | None, ...]

    @classmethod
    def in_place(cls, plans: Sequence[Any]) -> Attentions:
        """Return attentions to which tokens come in the order of the packed list."""
        none = (None,) * len(plans)
        return cls(tuple(plans), none, None, none)

    @property
    def leave(self) -> Turn | None:
        """The change after the last block, back to the packed list."""
        return None if self.enter is None else self.enter.back()

    def at_residuals(self, values: Tensor) -> list[Tensor]:
        """Return values of the tokens ``(n, ...)`` in the order of each residual of a block: its attentions, then the MLP."""
        return [values if order is None else values[order] for order in (*self.orders, self.orders[-1])]


def in_turn(segmentations: Sequence[Segmentation]) -> Attentions:
    """Return attentions within segmentations of all tokens; the tokens come to each segment by segment."""
    orders = [_order(segmentation) for segmentation in segmentations]
    return Attentions(
        plans=tuple(replace(each, queries=None, keys=None, inverse=None) for each in segmentations),
        orders=tuple(None if order is None else order[0] for order in orders),
        enter=_between(None, orders[-1]),
        within=tuple(_between(orders[number - 1], order) for number, order in enumerate(orders)),
    )


def turned(tokens: Tensor, turn: Turn | None) -> Tensor:
    """Return the tokens ``(n, e)`` in another order."""
    if turn is None:
        return tokens
    found: Tensor = _Turned.apply(tokens, turn.index, turn.inverse)
    return found


def _order(segmentation: Segmentation) -> Order | None:
    if segmentation.queries is None or segmentation.inverse is None:
        return None
    return segmentation.queries, segmentation.inverse


def _between(earlier: Order | None, later: Order | None) -> Turn | None:
    """Return the change between two orders."""
    if earlier is None or later is None:
        return Turn(*later) if later else Turn(*earlier).back() if earlier else None
    if torch.equal(earlier[0], later[0]):
        return None
    return Turn(earlier[1][later[0]], later[1][earlier[0]])


class _Turned(Function):
    """Rows by an index, whose gradient is rows by the inverse index, where PyTorch would add row by row into zeros."""

    @staticmethod
    def forward(ctx: Any, tokens: Tensor, index: Tensor, inverse: Tensor) -> Tensor:  # noqa: ANN401
        ctx.inverse = inverse
        return tokens.index_select(0, index)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:  # noqa: ANN401
        return gradient.index_select(0, ctx.inverse), None, None
