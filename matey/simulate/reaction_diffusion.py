"""PDEBench's diffusion-reaction system: FitzHugh-Nagumo in a closed square, from white noise.

    u_t = Du lap u + u - u^3 - k - v        (activator)
    v_t = Dv lap v + u - v                  (inhibitor)

The set-up is that of ``pdebench/data_gen/src/sim_diff_react.py``, which steps in time by scipy's adaptive RK45.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from torch import Tensor

from matey.simulate.time_stepping import integrate, runge_kutta_4

DIFFUSIVITY_U, DIFFUSIVITY_V = 1e-3, 5e-3
K = 5e-3
HALF_WIDTH = 1.0  # the domain is [-1, 1]^2
FRAME_INTERVAL = 0.05


def fitzhugh_nagumo(initial: Tensor, times: Tensor) -> Tensor:
    """Let activator and inhibitor react and diffuse; nothing flows through the walls.

    Args:
        initial: ``(b, f, y, x)``, the state at ``times[0]``, activator first.
        times: ``(t)``, increasing.

    Returns:
        Activator and inhibitor at each of the times, ``(b, t, f, y, x)``, float64.
    """
    initial = initial.to(torch.float64)
    spacing = tuple(2 * HALF_WIDTH / num_cells for num_cells in initial.shape[-2:])
    rate, largest_step = partial(_rate, spacing=spacing), partial(_largest_step, spacing=spacing)
    return torch.stack([*integrate(initial, times, rate, largest_step, runge_kutta_4)], dim=1)  # (b, t, f, y, x)


def white_noise(seed: int, resolution: int) -> Tensor:
    """Draw the initial fields of PDEBench's trajectory of that seed, ``(f, y, x)``: N(0, 1) in every cell."""
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((2, resolution, resolution)))


def laplacian(field: Tensor, spacing: tuple[float, ...]) -> Tensor:
    """Return the five-point Laplacian of ``(..., y, x)`` between walls without flux, of the same shape."""
    total = torch.zeros_like(field)
    for dim, cell in zip((-2, -1), spacing, strict=True):
        difference = field.diff(dim=dim).div_(cell**2)
        num_faces = difference.shape[dim]
        total.narrow(dim, 0, num_faces).add_(difference)
        total.narrow(dim, 1, num_faces).sub_(difference)
    return total


def _rate(state: Tensor, spacing: tuple[float, ...]) -> Tensor:
    """Return the time derivative of a state ``(b, f, y, x)``."""
    activator, inhibitor = state.unbind(1)
    rate = laplacian(state, spacing)
    rate[:, 0].mul_(DIFFUSIVITY_U).add_(activator - activator * activator * activator - K - inhibitor)
    rate[:, 1].mul_(DIFFUSIVITY_V).add_(activator - inhibitor)
    return rate


def _largest_step(state: Tensor, time: Tensor, spacing: tuple[float, ...]) -> Tensor:
    """Return the step ``(b)`` that keeps RK4 stable, and accurate while noise on the scale of cells decays.

    The fastest rate is bounded by Gershgorin's circles. A mode with decay rate ``s`` is gone soon after ``t = 1 / s``,
    so steps may grow in proportion to ``t`` until stability alone limits them. With steps at that limit from the start,
    the inhibitor is 4 % off in frame 2 at 64 x 64; with these ten additional steps, 0.04 %.
    """
    sharpest = sum(4 / cell**2 for cell in spacing)
    largest = state[:, 0].abs().flatten(1).amax(1)
    fastest = torch.clamp(DIFFUSIVITY_U * sharpest + 3 * largest.square(), min=DIFFUSIVITY_V * sharpest) + 2
    return torch.minimum(2.5 / fastest, 0.5 / fastest + 0.15 * time)
