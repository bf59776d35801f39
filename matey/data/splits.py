"""Splits trajectories into parts for training, validation and testing: as the files say, or by a seeded permutation.

A solver that starts from a few rough states makes the same trajectory again and again; those that begin alike stay in one part.
They are found by fingerprints, hashes of the first two frames: the same seed simulated anew, or a copy in another folder or
layout, has the same fingerprint; another seed of the same sizes does not. Two frames are hashed, since different runs of a
solver may share the first one; of large frames, only the middle.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from functools import partial
from itertools import accumulate
from typing import Protocol, TypeVar

import numpy as np

from matey.data.trajectories import PARTS, BadValuesError, DataError, TrajectorySet

Item = TypeVar("Item")
Value = TypeVar("Value")


class Share(Protocol):
    """Function that does a piece of work for each item, once for all ranks; each rank gets all results, in order."""

    def __call__(self, work: Callable[[Item], Value], items: Sequence[Item], /) -> list[Value]:
        """Return the results; raise the first error, in the order of the items, on every rank."""


def alone(work: Callable[[Item], Value], items: Sequence[Item], /) -> list[Value]:
    """Do all of the work in this process."""
    return [work(item) for item in items]


# Limits of reading from a set at the start of a run or an evaluation: seconds on a slow disk.
MOST_TRAJECTORIES = 1000
MOST_BYTES = 2**31

# Bytes read of a trajectory whose two frames alone exceed MOST_BYTES: no process could hold them.
OF_LARGE_FRAMES = MOST_BYTES // 16


def fingerprints(data: TrajectorySet, numbers: Sequence[int], share: Share = alone) -> dict[int, str]:
    """Return fingerprints of trajectories by their numbers; where there are very many, only an even spread is read.

    A trajectory whose first frames hold NaN or infinity has none.

    Args:
        data: the set.
        numbers: numbers of the trajectories.
        share: function that shares the reading out over ranks; all ranks then call this function.

    Raises:
        DataError: a file is gone or corrupt.
    """
    chosen = _spread(data, numbers)
    found = zip(chosen, share(partial(_fingerprint_of, data), chosen), strict=True)
    return {number: text for number, text in found if text is not None}


def _spread(data: TrajectorySet, numbers: Sequence[int]) -> list[int]:
    """Return the numbers, or an even spread of as many as may be read."""
    if not numbers:
        return []
    sizes = (_bytes_of(data, number) for number in numbers)
    largest = max(OF_LARGE_FRAMES if size > MOST_BYTES else size for size in sizes)
    count = max(1, min(len(numbers), MOST_TRAJECTORIES, MOST_BYTES // largest))
    return [numbers[index * len(numbers) // count] for index in range(count)]


def _bytes_of(data: TrajectorySet, number: int) -> int:
    return 2 * 4 * len(data.fields) * math.prod(data.trajectories[number].grid)


def _fingerprint_of(data: TrajectorySet, number: int) -> str | None:
    """Return the hash of the first two frames, in whatever order the fields come."""
    about = data.trajectories[number]
    grid, most = about.grid, OF_LARGE_FRAMES if _bytes_of(data, number) > MOST_BYTES else MOST_BYTES
    most //= 2 * 4 * len(data.fields)  # cells: layers or, if one is too large, rows of the middle layer
    sizes = [min(size, max(1, most // math.prod(grid[axis + 1 :]))) for axis, size in enumerate(grid)]
    z, y, x = (slice((whole - size) // 2, (whole + size) // 2) for whole, size in zip(grid, sizes, strict=True))
    digest = hashlib.blake2b(repr(tuple(map(int, about.grid))).encode(), digest_size=8)
    try:
        frames = data.read(number, 0, min(2, about.num_frames), (z, y, x))  # (t, f, z, y, x)
    except BadValuesError:
        return None
    for name, index in sorted(zip(data.fields, range(len(data.fields)), strict=True)):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(frames[:, index]).data)
    return digest.hexdigest()


_ORDER_OF_TRAINING = 1  # added to the seed, so that this permutation differs from that of the split


@dataclass(frozen=True)
class Split:
    """The trajectories of a set for training, validation and testing; none is in two parts."""

    train: tuple[int, ...]
    valid: tuple[int, ...]
    test: tuple[int, ...]

    def with_moved(self, part_of: Mapping[int, str]) -> Split:
        """Return the split with some trajectories in other parts; those of ``unused`` are left out."""
        kept = {part: [number for number in getattr(self, part) if number not in part_of] for part in PARTS}
        moved = {part: [number for number, own in part_of.items() if own == part] for part in PARTS}
        return Split(*(tuple(sorted(kept[part] + moved[part])) for part in PARTS))


def split_set(
    trajectory_set: TrajectorySet,
    fractions: Sequence[float],
    seed: int,
    num_train: int | None = None,
    prints: Mapping[int, str] | None = None,
) -> Split:
    """Split a set as its files say or, by default, by a permutation that keeps trajectories that begin alike together.

    Args:
        trajectory_set: the set to split; its first frames are read, as far as `fingerprints` reads.
        fractions: shares of train, valid and test; where the files state the split themselves, a share only tells whether
            that part is asked for.
        seed: seed of the permutations.
        num_train: number of trajectories to train on, None for all. They are the first of a permutation, so that a
            smaller number gives a subset of a larger one; those that begin like an earlier one come after all others.
            Validation and test stay the same.
        prints: the fingerprints of the trajectories, where they are known; else they are read.

    Raises:
        DataError: the fractions or the number of trajectories do not fit, see `split_groups`; or the files state the part
            of some trajectories only, or no trajectory in a part asked for; or there are fewer than ``num_train`` to train
            on; or the first frames cannot be read.
    """
    own = [trajectory.split for trajectory in trajectory_set.trajectories]
    if prints is None:
        prints = fingerprints(trajectory_set, range(len(own))) if num_train is not None or not any(own) else {}
    groups = _alike(len(own), prints)
    split = _split_as_files_say(trajectory_set, fractions) if any(own) else split_groups(groups, fractions, seed)
    if num_train is None:
        return split
    if num_train > len(split.train):
        raise DataError(
            f"{trajectory_set.system} has {len(split.train)} trajectories to train on, and data.trajectories asks for "
            f"{num_train}; ask for fewer, or add data."
        )
    order = np.random.default_rng([seed, _ORDER_OF_TRAINING]).permutation(split.train).tolist()
    first = {prints.get(number, number): number for number in reversed(order)}
    chosen = sorted(order, key=lambda number: first[prints.get(number, number)] != number)[:num_train]
    return replace(split, train=tuple(sorted(chosen)))


def _alike(num_trajectories: int, prints: Mapping[int, str]) -> list[list[int]]:
    """Group trajectories by fingerprint, in the order of the first of each; one without a fingerprint is a group of its own."""
    groups: dict[str | int, list[int]] = {}
    for number in range(num_trajectories):
        groups.setdefault(prints.get(number, number), []).append(number)
    return list(groups.values())


def _split_as_files_say(trajectory_set: TrajectorySet, fractions: Sequence[float]) -> Split:
    own = [trajectory.split for trajectory in trajectory_set.trajectories]
    if None in own:
        first = trajectory_set.trajectories[own.index(None)]
        raise DataError(
            f"{first.label}: expected it to lie in a folder data/train, data/valid or data/test as others of "
            f"{trajectory_set.system} do; open the two kinds as two data sets."
        )
    held = ", ".join(sorted({part for part in own if part}))
    split = Split(*(tuple(i for i, part in enumerate(own) if part == name) for name in PARTS))
    for name, part, fraction in zip(PARTS, astuple(split), fractions, strict=True):
        if fraction > 0 and not part:
            raise DataError(
                f"{trajectory_set.system} has a split of its own, and holds only {held}: "
                f"expected some for {name}; give the folder that holds data/{name} too, or set its fraction to 0."
            )
    return split


def split_groups(groups: Sequence[Sequence[int]], fractions: Sequence[float], seed: int) -> Split:
    """Split trajectories into train, valid and test by a permutation of groups that stay together.

    Args:
        groups: numbers of the trajectories of each group.
        fractions: shares of train, valid and test, summing to 1; a part with a share above zero gets at least one
            group, and comes as close to its share of the trajectories as whole groups in the permuted order allow.
        seed: seed of the permutation.

    Raises:
        DataError: ``fractions`` is not three shares that sum to 1, or there are fewer groups than parts.
    """
    check_fractions(fractions)
    least = [int(fraction > 0) for fraction in fractions]
    total = sum(map(len, groups))
    if len(groups) < sum(least):
        alike = "" if len(groups) == total else f", which begin in {len(groups)} different ways"
        raise DataError(
            f"Fractions {tuple(fractions)} need at least {sum(least)} trajectories, one for each part, "
            f"got {total}{alike}; add data or set a fraction to 0; or cut the frames of each into these parts, by "
            "split_by: time beside the path in data.sets."
        )
    sizes = sizes_of(total, fractions)
    order = np.random.default_rng(seed).permutation(len(groups)).tolist()
    # Groups too large for the smallest part come first.
    order.sort(key=lambda group: len(groups[group]) <= min(filter(None, sizes)))
    ends = [0, *accumulate(len(groups[group]) for group in order)]
    borders = [0]
    for part in range(3):
        first = borders[-1] + least[part]
        last = len(groups) - sum(least[part + 1 :]) if least[part] else first
        wanted = sum(sizes[: part + 1])
        borders.append(min(range(first, last + 1), key=lambda border: abs(ends[border] - wanted)))
    parts = [[n for group in order[borders[i] : borders[i + 1]] for n in groups[group]] for i in range(3)]
    return Split(*(tuple(sorted(part)) for part in parts))


def check_fractions(fractions: Sequence[float]) -> None:
    """Raise DataError unless fractions are shares of train, valid and test."""
    if len(fractions) != 3 or min(fractions) < 0 or not abs(sum(fractions) - 1) < 1e-6:
        raise DataError(
            f"Expected fractions of train, valid and test, none negative and summing to 1, got {tuple(fractions)}."
        )


def sizes_of(num_items: int, fractions: Sequence[float]) -> list[int]:
    """Return the number of items for each part, at least one where its share is above 0, for which items must suffice."""
    wanted = [fraction * num_items for fraction in fractions]
    sizes = [max(1, int(want)) if want > 0 else 0 for want in wanted]
    while (missing := num_items - sum(sizes)) != 0:
        shortfall = [want - size for want, size in zip(wanted, sizes, strict=True)]
        if missing > 0:
            sizes[max((p for p in range(3) if wanted[p] > 0), key=shortfall.__getitem__)] += 1
        else:
            sizes[min((p for p in range(3) if sizes[p] > 1), key=shortfall.__getitem__)] -= 1
    return sizes
