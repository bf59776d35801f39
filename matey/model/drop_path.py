"""Stochastic depth per sample (Huang et al. 2016, arXiv:1603.09382), without a generator's state.

Whether a sample skips a residual is a hash of its draw in the training stream and of the residual's number. So it is the same
on every rank that holds some of the sample's tokens, on any number of ranks, when a block is computed again and after a resume.
"""

from __future__ import annotations

import torch
from torch import Tensor

from matey.hashing import GOLDEN, mixed, shifted_right


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
    """Return a number in [0, 1) for each integer, which passes for a random one."""
    return shifted_right(mixed(values.to(torch.int64) + (GOLDEN - 2**64)), 11).to(torch.float64) / 2**53
