"""Stochastic depth per sample (Huang et al. 2016, arXiv:1603.09382), without a generator's state.

A hash of the sample's draw in the training stream and of the residual's number decides whether the sample skips the residual.
The decision is the same on every rank with tokens of the sample, for any number of ranks, in recomputed blocks and after a
resume.
"""

from __future__ import annotations

import torch
from torch import Tensor

from matey.hashing import GOLDEN, mixed, shifted_right


def keep_scale(draw: Tensor, number: int, rate: float) -> Tensor:
    """Return each sample's factor on a residual, ``(b,)``: 0 with probability ``rate``, else ``1 / (1 - rate)``.

    Args:
        draw: ``(b,)`` int64, number of the draw, which tells samples of the training stream apart.
        number: number of the residual in the network.
        rate: probability that a sample skips the residual, below 1.
    """
    kept = uniform_hash(draw * 4096 + number) >= rate
    return kept.to(torch.float32) / (1 - rate)


def uniform_hash(values: Tensor) -> Tensor:
    """Return a pseudo-random number in [0, 1) for each integer."""
    return shifted_right(mixed(values.to(torch.int64) + (GOLDEN - 2**64)), 11).to(torch.float64) / 2**53
