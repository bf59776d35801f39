"""A random permutation, computed for single places without the others."""

from __future__ import annotations

import numpy as np

from matey.hashing import GOLDEN, mixed

_ROUNDS = 8  # rounds of the Feistel network: with 4, a few places are permuted unevenly


def shuffled(places: np.ndarray, size: int, key: int) -> np.ndarray:
    """Return the images of some of ``size`` places under the permutation that ``key`` chooses.

    A Feistel network permutes the smallest square of a power of two that holds all places; an image outside is permuted
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
            state = right + np.uint64((key + turn * GOLDEN) % 2**64)
            left, right = right, left ^ (mixed(state.view(np.int64)).view(np.uint64) & mask)
        moved[outside] = (left << half) | right
        outside = moved >= size
    return moved
