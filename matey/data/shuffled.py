"""A random permutation of which each place is found by itself, without the others."""

from __future__ import annotations

import numpy as np

_ROUNDS = 8  # of the Feistel network: with 4, a few places are permuted unevenly
_GOLDEN = 0x9E3779B97F4A7C15  # of SplitMix64: 2^64 over the golden ratio


def shuffled(places: np.ndarray, size: int, key: int) -> np.ndarray:
    """Return where a permutation of ``size`` places, which a key chooses, puts some of them, without all the others.

    A Feistel network permutes the smallest square of a power of two that holds all places; what falls outside is permuted
    again until it is inside (cycle walking: Black and Rogaway 2002, "Ciphers with arbitrary finite domains").

    Args:
        places: uint64, each below ``size``.
        size: number of places.
        key: key of the permutation, below 2^63.
    """
    half = np.uint64(max(1, ((size - 1).bit_length() + 1) // 2))
    mask = (np.uint64(1) << half) - np.uint64(1)
    moved = places.copy()
    outside = np.ones(len(moved), dtype=bool)
    while outside.any():
        left, right = moved[outside] >> half, moved[outside] & mask
        for turn in range(_ROUNDS):
            left, right = right, left ^ (_mixed(right + np.uint64((key + turn * _GOLDEN) % 2**64)) & mask)
        moved[outside] = (left << half) | right
        outside = moved >= size
    return moved


def _mixed(values: np.ndarray) -> np.ndarray:
    """Return values whose bits all depend on all bits of those given (the finalizer of SplitMix64)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
