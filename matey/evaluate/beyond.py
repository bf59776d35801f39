"""Rollouts that continue beyond the end of the truth, to see whether they keep conserved quantities or drift away."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from matey.data import Window, read_rollouts
from matey.data.windows import alike
from matey.evaluate.conservation import totals_of
from matey.evaluate.forecaster import Forecaster
from matey.evaluate.held_out import HeldOut
from matey.evaluate.rollout import rollout
from matey.fields import FieldBatch
from matey.physics import CELLS, measures_of

MOST_TRAJECTORIES = 4  # per system


@dataclass(frozen=True)
class Beyond:
    """Means of fields and conserved quantities in rollouts that continue beyond the end of the truth.

    Attributes:
        num_true: number of snapshots that were compared with the truth.
        num_steps: number of snapshots of the rollouts.
        drifts: three means over a few trajectories, by system and quantity: the value at the end of the truth, in the
            forecast at the same time, and at the end of the rollout.
    """

    num_true: int
    num_steps: int
    drifts: Mapping[tuple[str, str], Sequence[float]]


def longest_rollout(data: HeldOut) -> int:
    """Return how many frames follow the first history in every trajectory; 0 without trajectories."""
    lengths = [
        data.sets[index].trajectories[number].num_frames - data.num_frames
        for index, numbers in enumerate(data.trajectories)
        for number in numbers
    ]
    return max(0, min(lengths, default=0))


def go_beyond(
    model: Forecaster, data: HeldOut, num_true: int, num_steps: int, start: int = 0, conserve: bool = False
) -> Beyond:
    """Roll out from the beginning of a few trajectories of each system to beyond their ends.

    Data whose given fields vary in time is left out, since nothing is known of these beyond the end.

    Args:
        model: the model.
        data: the trajectories.
        num_true: number of snapshots that are compared with the truth.
        num_steps: number of snapshots of the rollouts, more than ``num_true``.
        start: first frame of the histories; it makes histories of different lengths end at the same frame.
        conserve: whether rollouts keep the totals of conserved quantities, see `matey.evaluate.conservation`.

    Returns:
        The measures of `matey.physics` that each system has, and the change of each field's mean since the last known
        frame, divided by the field's mean absolute value.
    """
    found: dict[tuple[str, str], list[Tensor]] = {}
    for index, numbers in enumerate(data.trajectories):
        if data.sets[index].varying:
            continue
        windows = [Window(index, number, start, 1) for number in numbers[:MOST_TRAJECTORIES]]
        for together in alike(data.sets, windows):
            (known,) = read_rollouts(data.sets, together, data.num_frames, num_true)
            frames, totals = {}, totals_of(known.batch) if conserve else None
            for step, frame in enumerate(rollout(model, known.batch, num_steps, totals=totals), start=1):
                if step in (num_true, num_steps):
                    frames[step] = frame.cpu()
            shown = known.truth[:, -1], frames[num_true], frames[num_steps]
            for rows in zip(*(_quantities(frame, known.batch) for frame in shown), strict=True):
                name = rows[0][0]
                values = torch.stack([value for _, value in rows])  # (3, b)
                found.setdefault((known.batch.system, name), []).append(values)
    drifts = {key: torch.cat(each, dim=1).mean(dim=1).tolist() for key, each in found.items()}
    return Beyond(num_true, num_steps, drifts)


def _quantities(frame: Tensor, batch: FieldBatch) -> Iterator[tuple[str, Tensor]]:
    """Yield the names and values ``(b,)`` of a frame's measures and changes of means; the frame is ``(b, f, z, y, x)``."""
    for _, measure in measures_of(batch):
        if (value := measure.number(frame, batch)) is not None:
            yield measure.label, value.double()
    before = batch.last.double()
    change = (frame.double() - before).mean(dim=CELLS) / before.abs().mean(dim=CELLS).clamp_min(math.ulp(0.0))  # (b, f)
    for number, name in enumerate(batch.fields):
        yield f"change of mean {name}", change[:, number]
