"""Refuses second derivatives of what computes its gradient by hand."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch

Backward = Callable[..., Any]


def first_only(what: str, advice: str) -> Callable[[Backward], Backward]:
    """Return a decorator of a backward pass that raises RuntimeError if its result is to be differentiated again.

    PyTorch's `once_differentiable` does not raise in `torch.autograd.grad`, which then leaves out a part of the derivative.

    Args:
        what: name of the things without second derivatives, in the plural.
        advice: part of a sentence on what to do instead.
    """

    def decorate(backward: Backward) -> Backward:
        @wraps(backward)
        def checked(ctx: Any, *gradients: Any) -> Any:  # noqa: ANN401
            if torch.is_grad_enabled():
                raise RuntimeError(f"{what} have no second derivatives; {advice}, or leave out create_graph=True.")
            return backward(ctx, *gradients)

        return checked

    return decorate


first_only_of_local = first_only("Local operators", "use a model with local=0")
