"""The cosine transform (DCT-II) by FFT, in which the Laplacian between walls without flux is diagonal."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def cosine(field: Tensor) -> Tensor:
    """Return ``sum_x field[x] cos(pi k (x + 1/2) / n)`` over both of the last axes, of the same shape."""
    return _transposed(_forward(_transposed(_forward(field))))


def inverse_cosine(amplitude: Tensor) -> Tensor:
    """Undo ``cosine``."""
    return _transposed(_backward(_transposed(_backward(amplitude))))


def _transposed(field: Tensor) -> Tensor:
    # Copied: FFTs of strided tensors round differently in a larger batch when their length is odd.
    return field.mT.contiguous()


def _forward(field: Tensor) -> Tensor:
    # Makhoul 1980, IEEE Trans. Acoust. 28, 27: even cells forwards, then odd ones backwards, need one FFT of length n.
    folded = torch.cat((field[..., ::2], field[..., 1::2].flip(-1)), dim=-1)
    spectrum = torch.fft.fft(folded)
    cos, sin = _quarter_turn(field)
    return spectrum.real * cos + spectrum.imag * sin


def _backward(amplitude: Tensor) -> Tensor:
    size = amplitude.shape[-1]
    mirrored = torch.cat((torch.zeros_like(amplitude[..., :1]), amplitude[..., 1:].flip(-1)), dim=-1)
    cos, sin = _quarter_turn(amplitude)
    spectrum = torch.complex(amplitude * cos + mirrored * sin, amplitude * sin - mirrored * cos)
    folded = torch.fft.ifft(spectrum).real
    field = torch.empty_like(amplitude)
    num_even = (size + 1) // 2
    field[..., ::2], field[..., 1::2] = folded[..., :num_even], folded[..., num_even:].flip(-1)
    return field


def _quarter_turn(field: Tensor) -> tuple[Tensor, Tensor]:
    """Return cosine and sine of ``pi k / 2 n``."""
    size = field.shape[-1]
    angle = math.pi / (2 * size) * torch.arange(size, dtype=field.dtype, device=field.device)
    return angle.cos(), angle.sin()
