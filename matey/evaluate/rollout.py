"""Rolls a model out over its own predictions.

In steps of one snapshot every frame is predicted from the frames right before it. In steps of ``lead`` snapshots the next
``lead`` frames are predicted directly from the same history, each at its own lead time, before the newest of them become the
history:

    lead 1    t0 -> t1 -> t2 -> t3 -> t4 -> t5 -> t6
    lead 3    t0 -> t1,  t0 -> t2,  t0 -> t3;  t3 -> t4,  t3 -> t5,  t3 -> t6

Every frame is there in both, for as many forecasts; errors are passed on ``lead`` times less often in the second.

A model that has left what it was trained on may amplify its own errors without end. The change of a field from one snapshot to
the next is therefore limited by what the given history says of its size, so that the error grows in proportion to the number of
steps at the most.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from matey.evaluate.forecaster import Forecaster
from matey.fields import FieldBatch

MAX_GROWTH = 4.0
"""How many times as large as in the history a change may become.

In five of the seven systems simulated here it is at most 2.2 times as large, from any frame on, and in compressible_rand 3.4
times in the velocities; in colliding thermals that have just been let go, the potential temperature's is up to 10 times as
large, see `LEAST_SHARE`. A field that is the same in all cells and frames of the history has no limit.
"""

LEAST_SHARE = 0.1
"""Share of a field's deviation that counts as a change of the history if its own is smaller, as where a motion only begins."""


def rollout(
    model: Forecaster, batch: FieldBatch, num_steps: int, lead: int = 1, largest: Tensor | None = None
) -> Iterator[Tensor]:
    """Predict ``num_steps`` consecutive frames, each one snapshot after the one before.

    Args:
        model: the model; it predicts a frame from the newest frames known, which are its own predictions as soon as
            there are any.
        batch: the histories; its lead time and target are ignored. What is given and varies in time must reach as far as
            the forecast.
        num_steps: number of frames.
        lead: number of frames that are predicted from the same history, the last of them at this lead time in
            snapshots. It should be no longer than the lead times that the model was trained on.
        largest: the largest changes, see `largest_change`, of the history that a rollout began with, where this one goes
            on with it; by default those of the histories in ``batch``.

    Yields:
        Frames ``(b, f, z, y, x)`` in physical units, on the model's device.
    """
    batch = batch.to(model.device).with_tensors(target=None)
    largest = largest_change(batch.history) if largest is None else largest.to(model.device)
    frames: list[Tensor] = []
    for first in range(0, num_steps, lead):
        if frames:
            batch = batch.moved_on(torch.stack(frames, dim=1))
        frames = []
        for ahead in range(1, min(lead, num_steps - first) + 1):
            frame = model.predict(batch.with_tensors(lead_time=torch.full_like(batch.lead_time, ahead)))
            frames.append(limited(frame, batch.last, ahead * largest))
            yield frames[-1]


def largest_change(history: Tensor) -> Tensor:
    """Return the root mean square of the largest change from one snapshot to the next that a rollout may make.

    Args:
        history: the given frames ``(b, t, f, z, y, x)``.

    Returns:
        ``(b, f)``; infinite where a single frame or constant fields say nothing of it.
    """
    if history.shape[1] == 1:
        return history.new_full((history.shape[0], history.shape[2]), torch.inf)
    changes = root_mean_square(history.diff(dim=1)).amax(dim=1)
    return largest_of(changes, history.double().std(dim=(1, 3, 4, 5), correction=0))


def largest_of(changes: Tensor, deviation: Tensor) -> Tensor:
    """Return the largest change ``(b, f)`` from the largest one in a history and the deviation of its fields."""
    size = MAX_GROWTH * torch.maximum(changes, LEAST_SHARE * deviation)
    return size.where(size > 0, torch.inf)


def limited(frame: Tensor, last: Tensor, largest: Tensor) -> Tensor:
    """Scale the change from the last known frame down to the largest one, ``(b, f)``, in the fields where it is larger."""
    change = frame - last
    size = root_mean_square(change)
    share = (largest / size)[..., None, None, None]
    return frame.where(share >= 1, last + share.to(change.dtype) * change)


def root_mean_square(values: Tensor) -> Tensor:
    """Return the root mean square of fields ``(..., z, y, x)`` over their cells; squares may overflow float32."""
    return values.double().square().mean(dim=(-3, -2, -1)).sqrt()
