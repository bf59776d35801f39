"""The ranges of the normalisation's scales that a network sees in training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

from matey.config import RunConfig
from matey.data.reading import read_windows, sound_windows
from matey.data.trajectories import TrajectorySet
from matey.data.windows import Window, spread_windows
from matey.model.scales import Ranges, ranges_of, united, widened
from matey.parallel.collectives import on_one_thread, shared_out
from matey.tokens.normalisation import normalisation_of
from matey.train.run_data import RunData

MOST_WINDOWS, FEWEST_WINDOWS = 1000, 200
"""Numbers of windows of a set; too few would miss the first frames of trajectories, where fields often change most."""
MOST_VALUES = 2**30
"""Number of values of a set that are read at most; if the fewest windows hold more, the set's fields have no range."""
MARGIN = 0.1
"""Fraction by which a range is widened on each side."""


def seen_scales(run: RunConfig, data: RunData, before: Ranges | None) -> dict[str, list[list[float]]]:
    """Return the ranges of scales in the training data, united with the ranges ``before`` of a pretrained model.

    They are ranges over histories that are spread over the training data; given fields have none. The ranks share the reading,
    and all must call.
    """
    history, windows, sets = run.data.history, list[Window](), data.mixture.sets
    for index, (source, train) in enumerate(zip(sets, data.mixture.train, strict=True)):
        largest = max(math.prod(source.trajectories[trajectory].grid) for trajectory in train)
        count = min(MOST_WINDOWS, MOST_VALUES // ((history + 1) * len(source.fields) * largest))
        if count >= FEWEST_WINDOWS:
            windows += spread_windows(source, train, history, 1, count, set_index=index)
    if run.data.bad_values == "skip":
        windows = sound_windows(sets, windows, history, shared_out)
    with on_one_thread():
        found = shared_out(partial(_ranges, sets, history), windows)
    return united([before or {}, widened(united(found), MARGIN)])


def _ranges(sets: Sequence[TrajectorySet], history: int, window: Window) -> Ranges:
    (batch,) = read_windows(sets, [window], history)
    return ranges_of(normalisation_of(batch.history).scales(), batch.fields)
