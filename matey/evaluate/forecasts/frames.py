"""Forecasts a batch of trajectories frame by frame; memory holds the history and one frame."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from matey.data.reading import read_history, read_history_part
from matey.evaluate.conservation import totals_of
from matey.evaluate.forecasts.crew import Crew
from matey.evaluate.forecasts.request import ForecastRequest
from matey.evaluate.rollout import largest_change, largest_so_far, rollout, root_mean_square
from matey.evaluate.rollout_parts import largest_change_of, rollout_parts, sizes_of, totals_of_part
from matey.model.boxes import share_of
from matey.model.forecast import hold, inside, moved_on, surrounded
from matey.model.matey import MateyModel
from matey.samples import Box

Earlier = Callable[[int, int, int, int], np.ndarray]
"""Reads earlier forecast frames of trajectories ``first`` to ``end``, at steps ``from`` to ``to`` counted from 0."""

EarlierBoxes = Callable[[Sequence[Box], int, int], list[Tensor]]
"""Reads earlier forecast frames ``(t, f, z, y, x)`` in boxes of cells, at steps ``from`` to ``to`` counted from 0."""


@dataclass(frozen=True)
class ForecastFrame:
    """One snapshot of a forecast, for a batch of trajectories.

    Attributes:
        first: place of the batch's first trajectory in the request; the others follow it.
        trajectories: numbers of the trajectories in the data set.
        step: number of snapshots after the last known frame, at least 1.
        time: time since the trajectories began, in the units of the data set.
        values: predicted fields ``(b, f, z, y, x)`` in physical units, on the model's device.
    """

    first: int
    trajectories: tuple[int, ...]
    step: int
    time: float
    values: Tensor = field(repr=False)


def forecast_batch(
    model: MateyModel, request: ForecastRequest, first: int, end: int, done: int, earlier: Earlier | None = None
) -> Iterator[ForecastFrame]:
    """Forecast some trajectories of a request together.

    Args:
        model: the model.
        request: the request.
        first: place of the first trajectory in the request.
        end: place after the last one.
        done: number of steps already forecast. Only whole stretches of ``request.lead`` steps count, so that the rest is
            the same as without an interruption; later steps are forecast again.
        earlier: function that reads the frames of these steps; needed if there are any.

    Yields:
        The remaining frames, one snapshot after another.

    Raises:
        DataError: see ``TrajectorySet.read``.
    """
    trajectories = request.trajectories[first:end]
    batch = read_history(request.data, trajectories, request.start, request.num_frames, request.num_steps)
    largest, totals = largest_change(batch.history), totals_of(batch) if request.conserve else None
    done -= done % request.lead
    if done:
        assert earlier is not None, "frames that were forecast before have to be read"
        read, last = earlier, batch.last

        def size_of(before: int, step: int) -> Tensor:
            start = last if before < 0 else torch.from_numpy(read(first, end, before, before + 1))[:, 0]
            return root_mean_square(torch.from_numpy(read(first, end, step, step + 1))[:, 0] - start)

        largest = largest_so_far(largest, size_of, done, request.lead)
        frames = torch.from_numpy(earlier(first, end, max(0, done - request.num_frames), done))
        batch = batch.moved_on(frames, done)
    frames_left = rollout(model, batch, request.num_steps - done, request.lead, largest=largest, totals=totals)
    for step, values in enumerate(frames_left, start=done + 1):
        time = (request.last_known + step) * request.first.time_step
        yield ForecastFrame(first, trajectories, step, time, values)


def forecast_boxes(
    model: MateyModel, request: ForecastRequest, crew: Crew, first: int, end: int, done: int, earlier: EarlierBoxes
) -> Iterator[tuple[int, list[Tensor]]]:
    """Forecast with all ranks of the crew, see `forecast_batch`; yield steps, and frames in this rank's boxes.

    Frames are ``(f, z, y, x)``, float32 on the host.
    """
    begun = done - done % request.lead
    known = max(0, begun - request.num_frames)

    if not crew.is_in_parts:

        def whole(first: int, end: int, start: int, stop: int) -> np.ndarray:
            return torch.stack(earlier(crew.held, start, stop)).numpy()

        for frame in forecast_batch(model, request, first, end, done, whole):
            values = frame.values.float().cpu()
            yield frame.step, [values[sample] for sample, _ in crew.own]
        return
    ranks, exchange = model.sequence_group.ranks, model.sequence_group.exchange
    config, trajectories, share = model.config, request.trajectories[first:end], share_of(model.config, ranks)
    assert share is not None, "a crew in parts"
    asked = request.start, request.num_frames, share, request.num_steps
    parts = [read_history_part(request.data, trajectories, *asked)]
    hold(parts, config, ranks)
    part = parts.pop()
    largest = largest_change_of(part, exchange, ranks.size)
    totals = totals_of_part(part, exchange, ranks.size) if request.conserve else None
    if begun:
        last = [inside(piece, piece.history[-1:]) for piece in part.pieces]

        def size_of(before: int, step: int) -> Tensor:
            frames = earlier(crew.held, step, step + 1)
            starts = last if before < 0 else earlier(crew.held, before, before + 1)
            changes = [frame[0] - start[0] for frame, start in zip(frames, starts, strict=True)]
            return sizes_of(changes, part, exchange, ranks.size)

        largest = largest_so_far(largest, size_of, begun, request.lead)
        frames = surrounded(earlier(crew.held, known, begun), part, config, ranks, exchange)
        part = moved_on(part, frames, begun)
    left = rollout_parts(model, part, request.num_steps - begun, request.lead, largest=largest, totals=totals)
    for step, found in enumerate(left, start=begun + 1):
        yield step, [inside(*each).float() for each in zip(part.pieces, found, strict=True)]
