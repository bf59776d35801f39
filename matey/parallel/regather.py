"""Gathered keys and values that are not kept for the backward pass but gathered again there.

They belong to the whole sequence and would make up most of a rank's memory. Each view of them that attention saves is replaced
by its place. The first view that the backward pass asks for gathers them again; after the last one they are dropped. A rank
whose attention saves only copies (for instance of each segment) still gathers with the others, which wait for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.graph import saved_tensors_hooks


class _Place:
    """Size, strides and offset of a saved view."""

    def __init__(self, view: Tensor) -> None:
        self.geometry = (view.size(), view.stride(), view.storage_offset())


class _AsksFor(Function):
    """Return the first tensor; the backward pass asks for the saved part of the second one, an empty view."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, other: Tensor) -> Tensor:  # noqa: ANN401
        ctx.save_for_backward(other[:0])
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # noqa: ANN401
        _ = ctx.saved_tensors
        return gradient, None


@contextmanager
def not_kept(gathered: Tensor, gather_again: Callable[[], Tensor]) -> Iterator[Callable[[Tensor], Tensor]]:
    """Keep no view of ``gathered`` for the backward pass of the computation inside.

    It yields a function to apply to the result, inside: with it the backward pass gathers on every rank, exactly once.

    Args:
        gathered: the tensor whose storage is given up.
        gather_again: function that makes an equal tensor; all ranks of the group call it in the same order.
    """
    storage = gathered.untyped_storage().data_ptr()
    pending, again, asks = 0, None, False

    def pack(tensor: Tensor) -> Tensor | _Place:
        nonlocal pending
        if not asks and (not tensor.numel() or tensor.untyped_storage().data_ptr() != storage):
            return tensor
        pending += 1
        return _Place(tensor)

    def unpack(saved: Tensor | _Place) -> Tensor:
        nonlocal pending, again
        if not isinstance(saved, _Place):
            return saved
        if again is None:
            with torch.no_grad():
                again = gather_again()
        view = again.as_strided(*saved.geometry)
        pending -= 1
        if pending == 0:
            again = None
        return view

    def asked_for(values: Tensor) -> Tensor:
        nonlocal asks
        if pending or not torch.is_grad_enabled():
            return values
        asks = True
        values = _AsksFor.apply(values, gathered.detach())
        asks = False
        return values

    with saved_tensors_hooks(pack, unpack):
        yield asked_for
