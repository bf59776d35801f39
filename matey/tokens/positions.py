"""Fourier features of positions, sizes and lead times."""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor


def fourier_features(values: Tensor, shortest: float, longest: float, num_wavelengths: int) -> Tensor:
    """Return sines and cosines of values at log-spaced wavelengths (Aurora, arXiv:2405.13063, appendix B).

    Args:
        values: ``(...)``, positions, sizes or times in the unit of the wavelengths.
        shortest: the shortest wavelength; values closer than half of it look alike.
        longest: the longest wavelength; values further apart are told apart only by several wavelengths together.
        num_wavelengths: number of wavelengths.

    Returns:
        ``(..., 2 num_wavelengths)``, computed in float64 or float32 as ``values`` is.
    """
    phase = phases(values, shortest, longest, num_wavelengths)
    return torch.cat([phase.sin(), phase.cos()], dim=-1)


def phases(values: Tensor, shortest: float, longest: float, num_wavelengths: int) -> Tensor:
    """Return the phases ``(..., num_wavelengths)`` of values ``(...)`` at log-spaced wavelengths, see `fourier_features`."""
    return values[..., None] * _angular(shortest, longest, num_wavelengths, values.device, values.dtype)


@cache
def _angular(shortest: float, longest: float, num_wavelengths: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return 2 pi over each wavelength, on the device of the values: copied there once, since a copy makes the host wait."""
    with torch.inference_mode(False):  # the cached tensor may be used in training later
        exponents = torch.linspace(math.log(shortest), math.log(longest), num_wavelengths, dtype=torch.float64)
        return (2 * math.pi / exponents.exp()).to(device, dtype)
