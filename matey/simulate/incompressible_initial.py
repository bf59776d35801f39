"""PDEBench's random initial state and force of incompressible flow: smooth noise, as phiflow's ``Noise`` draws it."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from matey.simulate.incompressible import Flow

SCALE, SMOOTHNESS = 0.4, 1.0  # for velocity and tracer
FORCE_SCALE, FORCE_SMOOTHNESS = 0.15, 3.0
LOWEST_WAVE = 0.1  # squared, in waves per scale: longer waves are left out


def noise_in_box(seed: int, resolution: int) -> tuple[Flow, Tensor]:
    """Draw a flow and the force on it: each component and the tracer have mean 0 and standard deviation 1.

    Returns:
        The flow, not yet divergence-free, and the force on the faces, ``(2, x, y)``; nothing crosses the walls.
    """
    generator = np.random.default_rng(seed)
    tracer, *velocity = (noise(generator, resolution, SCALE, SMOOTHNESS) for _ in range(3))
    force = [noise(generator, resolution, FORCE_SCALE, FORCE_SMOOTHNESS) for _ in range(2)]
    return Flow(_inside(velocity), tracer), _inside(force)


def noise(generator: np.random.Generator, resolution: int, scale: float, smoothness: float) -> Tensor:
    """Draw periodic noise in the unit square with amplitudes that fall as ``k^(-2 smoothness)``.

    Args:
        generator: the generator of random numbers.
        resolution: cells along each axis.
        scale: length of the longest waves, roughly.
        smoothness: rate at which short waves get weaker.

    Returns:
        ``(x, y)``, float64, of mean 0 and standard deviation 1.
    """
    wave = np.fft.fftfreq(resolution, 1 / resolution) * scale
    squared = wave[:, None] ** 2 + wave**2
    heard = squared > LOWEST_WAVE
    weight = np.where(heard, np.where(heard, squared, 1.0) ** -smoothness, 0.0)
    real, imaginary = generator.standard_normal((2, resolution, resolution))
    field = np.fft.ifft2(weight * (real + 1j * imaginary)).real
    return torch.from_numpy(field / field.std())


def _inside(components: list[Tensor]) -> Tensor:
    """Return components on the faces, ``(2, x, y)``, with nothing on the walls."""
    faces = torch.stack(components)
    faces[0, -1], faces[1, :, -1] = 0.0, 0.0
    return faces
