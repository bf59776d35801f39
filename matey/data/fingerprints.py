"""Fingerprints of trajectories: hashes of the first two frames, which find the same data in another file.

The same seed simulated anew, or a copy in another folder or layout, has the same fingerprint; another seed of the same sizes
does not. Two frames are hashed, since different runs of a solver may share the first one; of large frames, only boxes.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import numpy as np

from matey.data.share import Share, alone
from matey.data.trajectories import BadValuesError, Cells, TrajectorySet

# Limits of reading from a set at the start of a run or an evaluation: seconds on a slow disk.
MOST_TRAJECTORIES = 1000
MOST_BYTES = 2**31

# Bytes read of a trajectory whose two frames alone exceed MOST_BYTES: no process could hold them.
OF_LARGE_FRAMES = MOST_BYTES // 16
MOST_BOXES = 16


def fingerprints(
    data: TrajectorySet, numbers: Sequence[int], share: Share = alone, known: Mapping[int, str] | None = None
) -> dict[int, str]:
    """Return fingerprints of trajectories by their numbers; where there are very many, only an even spread is read.

    A trajectory whose first frames hold NaN or infinity has none.

    Args:
        data: the set.
        numbers: numbers of the trajectories.
        share: function that shares the reading out over ranks; all ranks then call this function.
        known: fingerprints that are known already, by the numbers of the trajectories.

    Raises:
        DataError: a file is gone or corrupt.
    """
    known = known or {}
    chosen = _spread(data, [number for number in numbers if number not in known])
    read = dict(zip(chosen, share(partial(_fingerprint_of, data), chosen), strict=True))
    found = ((number, known.get(number) or read.get(number)) for number in numbers)
    return {number: text for number, text in found if text is not None}


def _spread(data: TrajectorySet, numbers: Sequence[int]) -> list[int]:
    """Return the numbers, or an even spread of as many as may be read."""
    if not numbers:
        return []
    largest = max(OF_LARGE_FRAMES if _is_large(data, number) else _bytes_of(data, number) for number in numbers)
    count = max(1, min(len(numbers), MOST_TRAJECTORIES, MOST_BYTES // largest))
    return [numbers[index * len(numbers) // count] for index in range(count)]


def _bytes_of(data: TrajectorySet, number: int) -> int:
    return 2 * 4 * len(data.fields) * math.prod(data.trajectories[number].grid)


def _is_large(data: TrajectorySet, number: int) -> bool:
    return _bytes_of(data, number) > MOST_BYTES


def _fingerprint_of(data: TrajectorySet, number: int) -> str | None:
    about = data.trajectories[number]
    boxes: list[Cells | None] = [None]  # all cells
    if _is_large(data, number):
        boxes = [*spread_boxes(about.grid, OF_LARGE_FRAMES // (2 * 4 * len(data.fields)))]
    digest = hashlib.blake2b(repr(tuple(map(int, about.grid))).encode(), digest_size=8)
    try:
        for box in boxes:
            _add(digest, data.fields, data.read(number, 0, min(2, about.num_frames), box))  # (t, f, z, y, x)
    except BadValuesError:
        return None
    return digest.hexdigest()


def _add(digest: hashlib.blake2b, fields: Sequence[str], frames: np.ndarray) -> None:
    """Hash frames ``(t, f, z, y, x)`` of float32, in whatever order the fields come."""
    for name, index in sorted(zip(fields, range(len(fields)), strict=True)):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(frames[:, index]).data)


def spread_boxes(grid: Sequence[int], most: int) -> Iterator[Cells]:
    """Yield evenly spread boxes of at most ``most`` cells in all: layers or, if one is too large, rows of the middle layer.

    The cells of a box lie together in the file, and few fields are at rest in all boxes.
    """
    axis = next(axis for axis in range(3) if math.prod(grid[axis + 1 :]) <= most)
    layers = min(grid[axis], most // math.prod(grid[axis + 1 :]))
    number = min(layers, MOST_BOXES)
    length = layers // number
    for box in range(number):
        first = (2 * box + 1) * grid[axis] // (2 * number) - length // 2
        sides = [slice(size // 2, size // 2 + 1) if along < axis else slice(0, size) for along, size in enumerate(grid)]
        sides[axis] = slice(first, first + length)
        z, y, x = sides
        yield z, y, x
