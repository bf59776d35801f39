"""The ranges of the scales that a network is told of in training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch

from matey.config import RunConfig
from matey.data.reading import read_windows
from matey.data.trajectories import TrajectorySet
from matey.data.windows import Window
from matey.model.scales import Ranges, ranges_of, scales_of, united
from matey.parallel.collectives import shared_out
from matey.tokens.normalisation import normalisation_of
from matey.train.run_data import RunData, training_windows

LARGEST_FRAME = 2**28
"""Cells of a frame beyond which a set is not looked at, and its fields have no range: one rank would hold whole frames."""


def seen_scales(run: RunConfig, data: RunData, before: Ranges | None) -> dict[str, list[list[float]]]:
    """Return the ranges of scales in the training data, together with those ``before``, which a pretrained model has.

    Those of the windows that the loss is balanced by, of the last two frames of each history; fields that are given have none.
    The ranks share the reading; all must call.
    """
    num_frames = min(run.data.history, 2)
    windows = [
        replace(window, start=window.start + run.data.history - num_frames)
        for window in training_windows(run, data)
        if math.prod(data.sets[window.set_index].trajectories[window.trajectory].grid) <= LARGEST_FRAME
    ]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # more add up in another order: a rank has few where there are many
    try:
        found = shared_out(partial(_ranges, data.sets, num_frames), windows)
    finally:
        torch.set_num_threads(threads)
    return united([before or {}, *found])


def _ranges(sets: Sequence[TrajectorySet], num_frames: int, window: Window) -> Ranges:
    (batch,) = read_windows(sets, [window], num_frames)
    return ranges_of(scales_of(normalisation_of(batch.history)), batch.fields)
