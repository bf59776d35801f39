"""Leaves out of an evaluation what is NaN or infinite, as training does with ``data.bad_values: skip``."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from copy import copy
from dataclasses import replace
from functools import partial
from itertools import pairwise

from matey.data import DataError, TrajectorySet
from matey.data.splits import Share, alone
from matey.data.trajectories import BadValuesError
from matey.data.windows import cut
from matey.evaluate.held_out import HeldOut


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
    about, num_given = data.trajectories[number], len(data.given)
    bad = [_first_bad(partial(data.read, number), cut(about.num_frames, len(data.fields), about.grid))]
    if num_given:
        spans = cut(about.num_frames if data.varying else 1, num_given, about.grid)
        bad.append(_first_bad(partial(data.read_given, number), spans))
    return min((frame for frame in bad if frame is not None), default=about.num_frames)


def _first_bad(read: Callable[[int, int], object], spans: Iterable[tuple[int, int]]) -> int | None:
    """Return the first frame that cannot be read for its values; None if all can."""
    for start, stop in spans:
        try:
            read(start, stop)
        except BadValuesError:
            return start if stop == start + 1 else _first_bad(read, pairwise(range(start, stop + 1)))
    return None
