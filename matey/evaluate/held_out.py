"""The trajectories that an evaluation reads: data sets, and which part of each counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from matey.config import DataSection
from matey.data import DataError, TrajectorySet, split_set

Part = Literal["all", "train", "valid", "test"]


@dataclass(frozen=True)
class HeldOut:
    """Trajectories to evaluate on, of one or several systems.

    Attributes:
        sets: the data sets.
        trajectories: per set, the trajectories that count.
        num_frames: frames of history ``T`` that the model is given.
        part: which part of each set was selected.
    """

    sets: tuple[TrajectorySet, ...]
    trajectories: tuple[tuple[int, ...], ...]
    num_frames: int
    part: Part = "all"

    @property
    def systems(self) -> tuple[str, ...]:
        """Each system once, in the order of the sets."""
        return tuple(dict.fromkeys(trajectory_set.system for trajectory_set in self.sets))


def hold_out(sets: Sequence[TrajectorySet], part: Part, num_frames: int, split: DataSection | None = None) -> HeldOut:
    """Select a part of every data set: all of it, or what a run's own split held back (or trained on).

    Raises:
        DataError: no run says how it split its data, the part is empty, or there are fewer trajectories than parts.
    """
    if part == "all":
        return HeldOut(tuple(sets), tuple(tuple(range(s.num_trajectories)) for s in sets), num_frames)
    if split is None:
        raise DataError(f"--split {part} needs a run folder, whose config.yaml says how it split its data; use all.")
    parts = [getattr(split_set(s, split.split, split.split_seed, split.trajectories), part) for s in sets]
    for trajectory_set, trajectories in zip(sets, parts, strict=True):
        if not trajectories:
            raise DataError(
                f"The {part} part of {trajectory_set.system} is empty; data.split of the run is {list(split.split)}. "
                "Choose another --split or give --data."
            )
    return HeldOut(tuple(sets), tuple(parts), num_frames, part)
