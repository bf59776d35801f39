"""A hash of integers to 64 bits that each depend on all bits of the integer."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    Integers = TypeVar("Integers", Tensor, np.ndarray)

GOLDEN = 0x9E3779B97F4A7C15
"""2^64 divided by the golden ratio: the increment from one state of SplitMix64 to the next."""


def mixed(numbers: Integers) -> Integers:
    """Mix all 64 bits of int64 as in the last step of SplitMix64 (Steele, Lea and Flood, 2014)."""
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        numbers = (numbers ^ shifted_right(numbers, shift)) * (factor - 2**64)
    spread: Integers = numbers ^ shifted_right(numbers, 31)
    return spread


def shifted_right(numbers: Integers, bits: int) -> Integers:
    """Shift int64 to the right and fill with zeros from the left."""
    shifted: Integers = (numbers >> bits) & (2 ** (64 - bits) - 1)
    return shifted
