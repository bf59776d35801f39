"""Gathered keys and values that are not kept for the backward pass but gathered again there.

They are those of the whole sequence, and kept they would make up most of a rank's memory. Whatever attention saves of them is
replaced by where it lies; the first that the backward pass asks for gathers them once more, the last drops them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks


class _Place:
    """Size, strides and offset of a saved view."""

    def __init__(self, view: Tensor) -> None:
        self.geometry = (view.size(), view.stride(), view.storage_offset())


@contextmanager
def not_kept(gathered: Tensor, gather_again: Callable[[], Tensor]) -> Iterator[None]:
    """Keep no view of ``gathered`` for the backward pass of what is computed inside.

    Args:
        gathered: the tensor whose storage is given up.
        gather_again: makes an equal tensor; all ranks of the group get to it in the same order.
    """
    storage = gathered.untyped_storage().data_ptr()
    pending, again = 0, None

    def pack(tensor: Tensor) -> Tensor | _Place:
        nonlocal pending
        if not tensor.numel() or tensor.untyped_storage().data_ptr() != storage:
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

    with saved_tensors_hooks(pack, unpack):
        yield
