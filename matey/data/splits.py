"""Which trajectories are for training, validation and testing: as the files say, or by a seeded permutation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace

import numpy as np

from matey.data.trajectories import DataError, TrajectorySet

PARTS = ("train", "valid", "test")
_ORDER_OF_TRAINING = 1  # beside the seed, so that this permutation is not the one behind the split


@dataclass(frozen=True)
class Split:
    """Which trajectories of a set are for training, validation and testing; none is in two parts."""

    train: tuple[int, ...]
    valid: tuple[int, ...]
    test: tuple[int, ...]


def split_set(
    trajectory_set: TrajectorySet, fractions: Sequence[float], seed: int, num_train: int | None = None
) -> Split:
    """Split a set as its files say or, where they leave that open, by ``split_trajectories``.

    Args:
        trajectory_set: the set to split.
        fractions: shares of train, valid and test; where the files themselves say the split, a share only tells whether
            that part is asked for.
        seed: seed of the permutations.
        num_train: number of trajectories to train on, None for all. They are the first of a permutation, so that a
            smaller number gives a subset of a larger one; validation and test stay the same.

    Raises:
        DataError: the fractions or the number of trajectories do not fit, see ``split_trajectories``; or the files say
            the split of some trajectories only, or of none in a part asked for; or there are fewer than ``num_train``
            to train on.
    """
    split = _split_whole_set(trajectory_set, fractions, seed)
    if num_train is None:
        return split
    if num_train > len(split.train):
        raise DataError(
            f"{trajectory_set.system} has {len(split.train)} trajectories to train on, and data.trajectories asks for "
            f"{num_train}; ask for fewer, or add data."
        )
    order = np.random.default_rng([seed, _ORDER_OF_TRAINING]).permutation(split.train)
    return replace(split, train=tuple(sorted(order[:num_train].tolist())))


def _split_whole_set(trajectory_set: TrajectorySet, fractions: Sequence[float], seed: int) -> Split:
    own = [trajectory.split for trajectory in trajectory_set.trajectories]
    if not any(own):
        return split_trajectories(trajectory_set.num_trajectories, fractions, seed)
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
                f"{trajectory_set.system} says itself what is for training, and holds only {held}: "
                f"expected some for {name}; give the folder that holds data/{name} too, or set its fraction to 0."
            )
    return split


def split_trajectories(num_trajectories: int, fractions: Sequence[float], seed: int) -> Split:
    """Split trajectories into train, valid and test by a permutation that depends on ``seed`` and the number alone.

    Args:
        num_trajectories: number of trajectories.
        fractions: shares of train, valid and test, summing to 1; every part above zero gets at least one trajectory.
        seed: seed of the permutation.

    Raises:
        DataError: ``fractions`` is not three shares that sum to 1, or there are fewer trajectories than parts.
    """
    if len(fractions) != 3 or min(fractions) < 0 or not abs(sum(fractions) - 1) < 1e-6:
        raise DataError(
            f"Expected fractions of train, valid and test, none negative and summing to 1, got {tuple(fractions)}."
        )
    wanted = [fraction * num_trajectories for fraction in fractions]
    sizes = [max(1, int(want)) if want > 0 else 0 for want in wanted]
    num_parts = sum(fraction > 0 for fraction in fractions)
    if num_trajectories < num_parts:
        raise DataError(
            f"Fractions {tuple(fractions)} need at least {num_parts} trajectories, one for each part, "
            f"got {num_trajectories}; add data or set a fraction to 0."
        )
    while (missing := num_trajectories - sum(sizes)) != 0:
        shortfall = [want - size for want, size in zip(wanted, sizes, strict=True)]
        if missing > 0:
            sizes[max((p for p in range(3) if wanted[p] > 0), key=shortfall.__getitem__)] += 1
        else:
            sizes[min((p for p in range(3) if sizes[p] > 1), key=shortfall.__getitem__)] -= 1
    order = np.random.default_rng(seed).permutation(num_trajectories)
    parts = np.split(order, np.cumsum(sizes)[:2])
    return Split(*(tuple(sorted(part.tolist())) for part in parts))
