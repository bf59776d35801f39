"""The trajectories of an evaluation: data sets, and the selected part of each."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from copy import copy
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from matey.checkpoints.run_files import CONFIG
from matey.config import DataSection
from matey.data import DataError, Trajectory, TrajectorySet, Window, split_set
from matey.data.reading import read_history
from matey.data.split_record import RecordedParts, SplitRecord, trained_on, twins_note
from matey.data.splits import Share, alone, fingerprints
from matey.data.trajectories import BadValuesError
from matey.fields import field_rows
from matey.model.configuration import MateyConfig
from matey.model.matey import MateyModel
from matey.tokens.normalisation import normalisation_of
from matey.tokens.refinement import check_window

Part = Literal["all", "train", "valid", "test"]
Seen = Literal["refuse", "leave_out", "score"]
"""Treatment of trajectories that the model was trained on."""


@dataclass(frozen=True)
class HeldOut:
    """Trajectories to evaluate on, of one or several systems.

    Attributes:
        sets: the data sets.
        trajectories: the selected trajectories of each set.
        num_frames: number of history frames ``T`` that the model is given.
        part: the part of each set that was selected.
        notes: sentences about the selection, perhaps none.
    """

    sets: tuple[TrajectorySet, ...]
    trajectories: tuple[tuple[int, ...], ...]
    num_frames: int
    part: Part = "all"
    notes: tuple[str, ...] = ()

    @property
    def systems(self) -> tuple[str, ...]:
        """Each system once, in the order of the sets."""
        return tuple(dict.fromkeys(trajectory_set.system for trajectory_set in self.sets))

    @property
    def chosen(self) -> list[tuple[int, int, Trajectory]]:
        """The selected trajectories, each after the number of its set and its own number there."""
        chosen = [(index, number) for index, numbers in enumerate(self.trajectories) for number in numbers]
        return [(index, number, self.sets[index].trajectories[number]) for index, number in chosen]

    def about(self, window: Window) -> Trajectory:
        """Return the trajectory of a window."""
        return self.sets[window.set_index].trajectories[window.trajectory]

    def labels(self, windows: Sequence[Window]) -> list[str]:
        """Return the names of the trajectories of windows."""
        return [self.about(window).label for window in windows]

    def of_system(self, system: str) -> HeldOut:
        """Return the selected trajectories of one system."""
        own = [index for index, trajectory_set in enumerate(self.sets) if trajectory_set.system == system]
        trajectories = tuple(self.trajectories[index] for index in own)
        return replace(self, sets=tuple(self.sets[index] for index in own), trajectories=trajectories)


def check_fit(model: MateyModel, data: HeldOut) -> None:
    """Raise DataError if the model cannot take the data."""
    for trajectory_set, trajectories in zip(data.sets, data.trajectories, strict=True):
        try:
            field_rows(trajectory_set.fields, model.config.fields)
        except ValueError as error:
            raise DataError(f"{trajectory_set.system}: {error}") from None
        for trajectory in (trajectory_set.trajectories[index] for index in trajectories):
            try:
                check_window((data.num_frames, *trajectory.grid), model.config.patches, model.config.refinement)
            except ValueError as error:
                raise DataError(f"{trajectory.source}: {error}") from None


STEPS = ("time step", "spacing along z", "spacing along y", "spacing along x")
SCALES = ("mean over its deviation", "deviation", "last change over its deviation")
NUM_LOOKS, MOST_CELLS = 16, 2**24  # histories of a set that are read, and the largest grid of which they are


def beyond_training(config: MateyConfig, data: HeldOut) -> list[str]:
    """Return a sentence on each set whose time step, spacing or scales mostly lie outside what the model was trained on."""
    found, spacings, ranges = [], config.spacings or {}, config.scales or {}
    for source, chosen in zip(data.sets, data.trajectories, strict=True):
        looks = chosen[:: -(-len(chosen) // NUM_LOOKS)]
        each = [source.trajectories[index] for index in looks]
        steps = torch.tensor([[about.time_step, *about.spacing] for about in each], dtype=torch.float64)
        said = _beyond("its ", STEPS, steps, spacings[source.system]) if source.system in spacings else []
        if ranges.keys() & {*source.fields} and max(math.prod(about.grid) for about in each) <= MOST_CELLS:
            if scales := list(_scales_in(source, looks, data.num_frames)):
                for row, field in enumerate(source.fields):
                    of_field = torch.cat(scales)[:, row].double()
                    said += _beyond(f"{field}'s ", SCALES, of_field, ranges[field]) if field in ranges else []
        if said:
            found.append(
                f"{source.system} lies outside what the model was trained on: {', '.join(said)}. Errors may be large; "
                "fine-tune on such data."
            )
    return found


def _scales_in(source: TrajectorySet, looks: Sequence[int], num_frames: int) -> Iterator[Tensor]:
    """Yield the scales ``(1, f, 3)`` of a history of each trajectory, from the first to the last frames."""
    bare = source.with_given(())  # given fields have no ranges
    for number, index in enumerate(looks, start=1):
        start = (source.trajectories[index].num_frames - num_frames) * number // len(looks)
        with suppress(BadValuesError):  # where the frames that are forecast from are bad, reading those says so
            yield normalisation_of(read_history(bare, [index], start, num_frames).history).scales()


def _beyond(of: str, names: Sequence[str], values: Tensor, bounds: Sequence[Sequence[float]]) -> list[str]:
    """Name the columns of ``values`` ``(n, k)`` more than half of which lie outside their bounds."""
    low, high = torch.tensor(bounds, dtype=torch.float64)
    slack = 1e-6 * (low.abs() + high.abs())
    outside = ((values < low - slack) | (values > high + slack)).double().mean(dim=0) > 0.5
    return [of + name for name, is_outside in zip(names, outside, strict=True) if is_outside]


def hold_out(
    sets: Sequence[TrajectorySet],
    part: Part,
    num_frames: int,
    split: DataSection | None = None,
    record: SplitRecord | None = None,
    *,
    are_of_the_run: bool = False,
) -> HeldOut:
    """Select a part of every data set: all trajectories, or those of a part of the run's own split.

    Args:
        sets: the data sets.
        part: the part to select.
        num_frames: number of history frames that the model is given.
        split: the settings by which the run splits its data.
        record: the trajectories of each part during the run's training; data sets not recorded are split by
            ``split``.
        are_of_the_run: whether the sets are all those of the run, so that no trajectory of the part may be missing.

    Raises:
        DataError: no run says how its data was split, the part is empty, some of it was removed or changed since training, or
            there are fewer trajectories than parts.
    """
    if part == "all":
        return HeldOut(tuple(sets), tuple(tuple(range(s.num_trajectories)) for s in sets), num_frames)
    if split is None:
        raise DataError(f"--split {part} needs a run folder, whose {CONFIG} says how it split its data; use all.")
    if record is not None and are_of_the_run and (lost := record.lost(sets, part)):
        raise DataError(
            f"The {part} part of the run's data is not what it was in training: {lost}. Restore it, or name the data to take "
            f"the part from with --data and --split {part}."
        )
    chosen, notes = [], []
    recorded = None if record is None else RecordedParts(record)
    sets = sets if recorded is None else [recorded.cut_as_then(data, split.split) for data in sets]
    for index, data in enumerate(sets):
        parts = [None] if recorded is None else recorded.parts_of(data, index)
        if any(parts):
            chosen.append(tuple(number for number, then in enumerate(parts) if then == part))
            if num_new := parts.count(None):
                notes.append(
                    f"{data.system}: {num_new} trajectories are in no part of the run's data and are left out."
                )
        else:
            chosen.append(getattr(split_set(data, split.split, split.split_seed, split.trajectories), part))
        if not chosen[-1]:
            raise DataError(
                f"The {part} part of {data.system} is empty; data.split of the run is {list(split.split)}. "
                "Choose another --split or give --data."
            )
    return HeldOut(tuple(sets), tuple(chosen), num_frames, part, tuple(notes))


def with_twins_noted(data: HeldOut, seen: frozenset[str], share: Share = alone) -> HeldOut:
    """Return a selection of the run's own data, with a note if trajectories begin like those of the training.

    For ``share``, see `matey.data.splits.fingerprints`.
    """
    if data.part in ("all", "train"):
        return data
    pairs = zip(data.sets, data.trajectories, strict=True)
    notes = [twins_note(each, numbers, seen, fingerprints(each, numbers, share)) for each, numbers in pairs]
    return replace(data, notes=(*data.notes, *filter(None, notes)))


def without_seen(
    data: HeldOut, seen: frozenset[str], record: SplitRecord | None, rule: Seen, share: Share = alone
) -> HeldOut:
    """Return the selection without trajectories that the model was trained on, or all of it with a note, by the rule.

    Args:
        data: the selection; if its part is ``train``, it is returned unchanged.
        seen: the run's fingerprints, see `matey.data.split_record`.
        record: the record of the run's split.
        rule: whether such trajectories are refused, left out, or scored all the same.
        share: see `matey.data.splits.fingerprints`.

    Raises:
        DataError: the rule refuses such trajectories, or leaving them out leaves none of a data set.
    """
    if data.part == "train":
        return data
    chosen, notes = [], []
    for source, numbers in zip(data.sets, data.trajectories, strict=True):
        known = trained_on(source, numbers, seen, record, share)
        if known:
            first = source.trajectories[known[0]].label
            words = f"{source.system}: the model was trained on {len(known)} of these {len(numbers)} trajectories"
            if rule == "refuse" or (rule == "leave_out" and len(known) == len(numbers)):
                raise DataError(
                    f"{words}, known by their first frames, such as {first}: its errors on them would be too small. Take other "
                    "data; or what its run held out, with --split test; or --seen leave_out to score the others alone, if "
                    "there are any, --seen score to score all."
                )
            ending = ", which are left out." if rule == "leave_out" else ": their errors flatter it."
            notes.append(words + ending)
        chosen.append(tuple(number for number in numbers if rule == "score" or number not in known))
    return replace(data, trajectories=tuple(chosen), notes=(*data.notes, *notes))


def sound_beginnings(data: HeldOut, least: int, given: Collection[str] = (), share: Share = alone) -> HeldOut:
    """Return a selection whose trajectories end before their first frame with NaN or infinity; all of them are read.

    Args:
        data: the selection.
        least: number of frames that the forecasts need; a trajectory that is left with fewer is left out.
        given: names of the given fields that models use.
        share: function that shares the reading out over ranks; all ranks then call this function.

    Raises:
        DataError: nothing of a data set is left, or a file is gone or corrupt.
    """
    sets, chosen, notes = [], [], []
    for each, numbers in zip(data.sets, data.trajectories, strict=True):
        lengths = share(partial(_num_sound, each.with_given(given)), numbers)
        sound = {n: found for n, found in zip(numbers, lengths, strict=True) if found < each.trajectories[n].num_frames}
        kept = tuple(number for number in numbers if sound.get(number, least) >= least)
        words = f"{each.system}: {len(sound)} of {len(numbers)} trajectories hold NaN or infinity"
        if not kept:
            raise DataError(
                f"{words} in the first {least} frames, which the forecasts need; ask for a shorter --rollout or smaller "
                "--leads, or repair the data."
            )
        if sound:
            notes.append(
                f"{words} (data.bad_values: skip): {len(numbers) - len(kept)} of them are left out, and of the others, the "
                "frames before are scored."
            )
        whole = enumerate(each.trajectories)
        shorter = copy(each)
        shorter.trajectories = tuple(replace(about, num_frames=sound.get(n) or about.num_frames) for n, about in whole)
        sets.append(shorter)
        chosen.append(kept)
    return replace(data, sets=tuple(sets), trajectories=tuple(chosen), notes=(*data.notes, *notes))


def _num_sound(data: TrajectorySet, number: int) -> int:
    """Return the number of frames of a trajectory before the first that is not finite."""
    num_frames = data.trajectories[number].num_frames
    for frame in range(num_frames):
        try:
            data.read(number, frame, frame + 1)
            if data.given and (data.varying or frame == 0):
                data.read_given(number, frame, frame + 1)
        except BadValuesError:
            return frame
    return num_frames
