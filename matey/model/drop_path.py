"""Stochastic depth per sample (Huang et al. 2016, arXiv:1603.09382), without a generator's state.

Whether a sample skips a residual is a hash of its draw in the training stream and of the residual's number. So it is the same
on every rank that holds some of the sample's tokens, on any number of ranks, when a block is computed again and after a resume.
"""

from __future__ import annotations

import torch
from torch import Tensor


def keep_scale(draw: Tensor, number: int, rate: float) -> Tensor:
    """Return the factor on a residual of each sample, ``(b,)``: 0 with probability ``rate``, else ``1 / (1 - rate)``.

    Args:
        draw: ``(b,)`` int64, number of the draw, which tells samples of the training stream apart.
        number: number of the residual in the network.
        rate: probability that a sample skips the residual, below 1.
    """
    kept = uniform_hash(draw * 4096 + number) >= rate
    return kept.to(torch.float32) / (1 - rate)


def uniform_hash(values: Tensor) -> Tensor:
    """Return a number in [0, 1) for each integer: splitmix64's finaliser, whose bits pass for random ones."""
    x = values.to(torch.int64) + -7046029254386353131  # 0x9E3779B97F4A7C15
    x = (x ^ _shifted(x, 30)) * -4658895280553007687  # 0xBF58476D1CE4E5B9
    x = (x ^ _shifted(x, 27)) * -7723592293110705685  # 0x94D049BB133111EB
    x = x ^ _shifted(x, 31)
    return _shifted(x, 11).to(torch.float64) / 2**53


def _shifted(x: Tensor, bits: int) -> Tensor:
    """Shift right without the sign."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)
