"""Fingerprints of trajectories: what begins alike has the same, wherever it lies and whoever wrote it.

The same seed simulated anew, a copy in another folder or another layout has the same fingerprint; another seed of the same
sizes has not. Two frames, since different runs of a solver may start from the same first one.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np

from matey.data.share import Share, alone
from matey.data.trajectories import BadValuesError, TrajectorySet

# What is read of a set at most, at the start of a run or of an evaluation: seconds on a slow disk.
MOST_TRAJECTORIES = 1000
MOST_BYTES = 2**31


def fingerprints(
    data: TrajectorySet, numbers: Sequence[int], share: Share = alone, known: Mapping[int, str] | None = None
) -> dict[int, str]:
    """Return the fingerprints of trajectories of a set by their numbers; where there are very many, of an even spread of them.

    A trajectory whose first frames hold NaN or infinity has none.

    Args:
        data: the set.
        numbers: numbers of the trajectories.
        share: function that shares the reading out over ranks, each of which then calls this.
        known: fingerprints of trajectories by their numbers that need not be read again.

    Raises:
        DataError: a file has gone or is corrupt.
    """
    known = known or {}
    chosen = _spread(data, [number for number in numbers if number not in known])
    read = dict(zip(chosen, share(partial(_fingerprint_of, data), chosen), strict=True))
    found = ((number, known.get(number) or read.get(number)) for number in numbers)
    return {number: text for number, text in found if text is not None}


def _spread(data: TrajectorySet, numbers: Sequence[int]) -> list[int]:
    """Return the numbers, or as many of them as may be read, evenly spread."""
    if not numbers:
        return []
    largest = max(math.prod(data.trajectories[number].grid) for number in numbers)
    affordable = MOST_BYTES // (2 * 4 * len(data.fields) * largest)
    count = max(1, min(len(numbers), MOST_TRAJECTORIES, affordable))
    return [numbers[index * len(numbers) // count] for index in range(count)]


def _fingerprint_of(data: TrajectorySet, number: int) -> str | None:
    try:
        frames = data.read(number, 0, min(2, data.trajectories[number].num_frames))  # (t, f, z, y, x)
    except BadValuesError:
        return None
    return _fingerprint(data.fields, frames)


def _fingerprint(fields: Sequence[str], frames: np.ndarray) -> str:
    """Hash frames ``(t, f, z, y, x)`` of float32, in whatever order the fields come."""
    digest = hashlib.blake2b(repr(frames.shape[2:]).encode(), digest_size=8)
    for name, index in sorted(zip(fields, range(len(fields)), strict=True)):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(frames[:, index]).tobytes())
    return digest.hexdigest()
