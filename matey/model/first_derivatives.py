"""Refuses second derivatives of what computes its gradient by hand."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch


def first_only(backward: Callable[..., Any]) -> Callable[..., Any]:
    """Return a backward pass that raises RuntimeError if its result is to be differentiated again.

    PyTorch's `once_differentiable` does not raise in `torch.autograd.grad`, which then leaves out a part of the derivative.
    """

    @wraps(backward)
    def checked(ctx: Any, *gradients: Any) -> Any:  # noqa: ANN401
        if torch.is_grad_enabled():
            raise RuntimeError(
                "The local operator has no second derivatives; use a model with local=0, or leave out create_graph=True."
            )
        return backward(ctx, *gradients)

    return checked
