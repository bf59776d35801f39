"""Explicit Runge-Kutta steps in which every trajectory of a batch has its own step size.

A solver provides its rate of change and its largest safe step. A trajectory's steps follow from its own state alone, so
its numbers do not depend on which other trajectories share the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise

import torch
from torch import Tensor, ceil, isfinite

MOST_STEPS = 20_000  # from one time to the next; the published systems need a few hundred at most
Rate = Callable[[Tensor], Tensor]
Scheme = Callable[[Rate, Tensor, Tensor], Tensor]


def integrate(
    state: Tensor,
    times: Tensor,
    rate: Rate,
    largest_step: Callable[[Tensor, Tensor], Tensor],
    scheme: Scheme,
) -> Iterator[Tensor]:
    """Yield the state at each of ``times``, beginning with the given one.

    Args:
        state: ``(b, ...)``, the state at ``times[0]``.
        times: ``(t)``, increasing.
        rate: the time derivative of a state, of the state's shape.
        largest_step: function of a state ``(b, ...)`` and its times ``(b)`` that returns the largest safe step ``(b)``
            of each.
        scheme: the scheme of a step, ``heun`` or ``runge_kutta_4``.

    Raises:
        FloatingPointError: the solution stopped being finite.
    """
    yield state
    per_trajectory = (-1,) + (1,) * (state.ndim - 1)
    for begin, end in pairwise(times.tolist()):
        remaining = state.new_full((state.shape[0],), end - begin)
        while (remaining > 0).any():
            num_steps = ceil(remaining / largest_step(state, end - remaining)).clamp(min=1)  # (b)
            check_steps(num_steps.max().item(), begin, end)
            # Equal steps leave no sliver at the end. A trajectory that is done takes steps of zero, to no effect.
            step = remaining / num_steps
            state = scheme(rate, state, step.reshape(per_trajectory))
            remaining = remaining - step
            if not isfinite(state).all():
                raise FloatingPointError(f"The solution stopped being finite between t = {begin:g} and t = {end:g}.")
        yield state


def check_steps(num_steps: float, begin: float, end: float) -> None:
    """Raise FloatingPointError if a solver would take more than MOST_STEPS steps between two times."""
    if not num_steps <= MOST_STEPS:
        raise FloatingPointError(
            f"From t = {begin:g} to t = {end:g} the solver would take {num_steps:.3g} steps, more than {MOST_STEPS:,}; "
            "take less extreme settings or a coarser resolution."
        )


def heun(rate: Rate, state: Tensor, step: Tensor) -> Tensor:
    """Take one step of the second-order strong-stability-preserving scheme (Shu and Osher 1988, eq. 2.16)."""
    predicted = state + step * rate(state)
    return 0.5 * (state + predicted + step * rate(predicted))


def runge_kutta_4(rate: Rate, state: Tensor, step: Tensor) -> Tensor:
    """Take one step of the classical fourth-order scheme; decay at a rate ``s`` is stable for ``step * s < 2.785``."""
    half = 0.5 * step
    first = rate(state)
    second = rate(state + half * first)
    third = rate(state + half * second)
    fourth = rate(state + step * third)
    return state + step / 6 * (first + 2 * (second + third) + fourth)


def runge_kutta_legendre(rate: Rate, state: Tensor, step: Tensor, num_stages: int) -> Tensor:
    """Take one step of the second-order scheme for diffusion of Meyer, Balsara and Aslam (2014, J. Comput. Phys. 257, 594).

    Decay at a rate ``s`` is stable for ``step * s < legendre_limit(num_stages)``, which grows with the square of the
    number of stages: five stages go as far as seven steps of two.
    """
    weights = [1 / 3, 1 / 3] + [(j * j + j - 2) / (2 * j * (j + 1)) for j in range(2, num_stages + 1)]
    stretch = 4 / (num_stages * num_stages + num_stages - 2)
    first = step * rate(state)
    # Changes rather than states are combined: a step of zero leaves every bit as it is.
    before, now = torch.zeros_like(state), weights[1] * stretch * first
    for j in range(2, num_stages + 1):
        of_now = (2 * j - 1) / j * weights[j] / weights[j - 1]
        of_before = (1 - j) / j * weights[j] / weights[j - 2]
        of_first = (weights[j - 1] - 1) * of_now * stretch
        onward = of_now * (now + stretch * step * rate(state + now))
        before, now = now, onward + of_before * before + of_first * first
    return state + now


def legendre_limit(num_stages: int) -> float:
    """Return the largest stable product of step and rate of decay for ``runge_kutta_legendre``."""
    return (num_stages * num_stages + num_stages - 2) / 2
