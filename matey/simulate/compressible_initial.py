"""PDEBench's random initial states of a compressible gas in the periodic unit square: ``rand`` and ``turbulence``.

Both are sums of plane waves with random phases. Distributions are those of ``init_multi_HD_2DRand`` and
``init_multi_HD_2DTurb`` in ``pdebench/data_gen/data_gen_NLE/utils.py``; the numbers differ, since PDEBench's come from JAX.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from matey.simulate.compressible import ADIABATIC_INDEX

HIGHEST_WAVE = 4  # waves per axis
WINDOW_EDGE = 0.01  # half the width over which a window closes
LEAST_DENSITY = 0.05  # least density and pressure, over the mean: one draw in 300 is lower


def rand(seed: int, resolution: int, mach: float) -> Tensor:
    """Draw waves of density, pressure and velocity, in half of all cases inside a box in gas at rest.

    Args:
        seed: seed of the draw.
        resolution: cells along each axis.
        mach: mean speed, before the window, in units of the speed of sound.

    Returns:
        Density, pressure and velocity ``(f, x, y)``, float64.
    """
    generator = np.random.default_rng(seed)
    density, temperature = generator.uniform(0.1, 10, 2)
    contrast = torch.from_numpy(generator.uniform(0.01, 0.2, 2))  # one for density, one for pressure
    windowed = generator.random() < 0.5
    sides = generator.uniform((0.1, 0.1), (0.45, 0.45)), generator.uniform((0.55, 0.55), (0.9, 0.9))

    fields = plane_waves(generator, 4, resolution)  # (f, x, y)
    scalars = fields[:2] / fields[:2].abs().mean((1, 2), keepdim=True) * contrast[:, None, None]
    scalars = scalars.clamp(min=LEAST_DENSITY - 1)
    velocity = with_mean_speed(fields[2:], mach * math.sqrt(ADIABATIC_INDEX * temperature))
    if windowed:
        inside = window(sides, resolution)
        scalars, velocity = inside * scalars, inside * velocity
    mean = torch.tensor([density, density * temperature], dtype=torch.float64)
    return torch.cat((mean[:, None, None] * (1 + scalars), velocity))


def turbulence(seed: int, resolution: int, mach: float) -> Tensor:
    """Draw waves of velocity with a mean speed of 1 in gas of density 1 in which sound travels at ``1 / mach``.

    The published files subtract the expanding part of each wave as if its wave vector were one lower on both axes. That
    leaves 2 to 12 % of the kinetic energy in expansion and compression, as it does here.

    Returns:
        Density, pressure and velocity ``(f, x, y)``, float64.
    """
    velocity = plane_waves(np.random.default_rng(seed), 2, resolution)
    wave = torch.fft.fftfreq(resolution, 1 / resolution, dtype=torch.float64) - 1
    vector = torch.stack(torch.meshgrid(wave, wave, indexing="ij"))  # (f, x, y)
    spectrum = torch.fft.fft2(velocity)
    expansion = (vector * spectrum).sum(0) / vector.square().sum(0).clamp(min=1)
    velocity = torch.fft.ifft2(spectrum - vector * expansion).real
    uniform = torch.ones(2, resolution, resolution, dtype=torch.float64)
    uniform[1] = 1 / (ADIABATIC_INDEX * mach**2)
    return torch.cat((uniform, with_mean_speed(velocity, 1.0)))


def plane_waves(generator: np.random.Generator, num_fields: int, resolution: int) -> Tensor:
    """Sum waves ``sin(2 pi k.x + phase) / sqrt(k)`` that vary along both axes, with up to four waves along each.

    Returns:
        One sum for each field, ``(f, x, y)``, float64, evaluated at the centres of the cells.
    """
    numbers = [number for number in range(-HIGHEST_WAVE, HIGHEST_WAVE + 1) if number]
    phase = generator.uniform(0, 2 * math.pi, (num_fields, len(numbers), len(numbers)))
    size = np.hypot(*np.meshgrid(numbers, numbers, indexing="ij")) ** -0.5
    centres = (np.arange(resolution) + 0.5) / resolution
    waves = np.exp(2j * math.pi * np.outer(numbers, centres))  # (k, x)
    return torch.from_numpy(np.einsum("fkl,kx,ly->fxy", size * np.exp(1j * phase), waves, waves, optimize=True).imag)


def with_mean_speed(velocity: Tensor, speed: float) -> Tensor:
    """Scale a velocity ``(f, x, y)`` so that its mean magnitude is ``speed``."""
    return velocity * (speed / velocity.square().sum(0).sqrt().mean())


def window(sides: tuple[np.ndarray, np.ndarray], resolution: int) -> Tensor:
    """Return a mask ``(x, y)``, 1 inside a box and 0 outside; ``sides`` are its lower and its upper corner."""
    centres = (np.arange(resolution) + 0.5) / resolution
    lower, upper = (np.tanh((centres - side[:, None]) / WINDOW_EDGE) for side in sides)  # each (axis, cell)
    along_x, along_y = 0.5 * (lower - upper)
    return torch.from_numpy(np.outer(along_x, along_y))
