"""Rolls a model out over its own predictions.

In steps of one snapshot every frame is predicted from the frames right before it. In steps of ``lead`` snapshots the next
``lead`` frames are predicted directly from the same history, each at its own lead time, before the newest of them become the
history:

    lead 1    t0 -> t1 -> t2 -> t3 -> t4 -> t5 -> t6
    lead 3    t0 -> t1,  t0 -> t2,  t0 -> t3;  t3 -> t4,  t3 -> t5,  t3 -> t6

Every frame is there in both, for as many forecasts; errors are passed on ``lead`` times less often in the second.

A model that has left what it was trained on may amplify its own errors without end. The change of a field from one snapshot to
the next is therefore limited by what the given history says of its size, or, where it says nothing, by the first change that
the rollout itself makes; so the error grows in proportion to the number of steps at the most.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from matey.evaluate.forecaster import Forecaster
from matey.fields import FieldBatch

MAX_GROWTH = 4.0
"""Largest ratio of a change to those in the history, or to the first of the rollout.

In five of the seven systems simulated here it is at most 2.2 times as large, from any frame on, and in compressible_rand 3.4
times in the velocities; in colliding thermals that have just been let go, the potential temperature's is up to 10 times as
large, see `LEAST_SHARE`.
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
        largest: the largest changes so far, see `largest_so_far`, of a rollout that this one goes on with; by default
            those of the histories in ``batch``.

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
            frame, largest = limited(frame, batch.last, ahead, largest)
            frames.append(frame)
            yield frame


def largest_change(history: Tensor) -> Tensor:
    """Return the root mean square of the largest change from one snapshot to the next that a rollout may make.

    Args:
        history: the given frames ``(b, t, f, z, y, x)``.

    Returns:
        ``(b, f)``; infinite, which is unknown, where the frames say nothing of it.
    """
    deviation, mean = torch.std_mean(history.double(), dim=(1, 3, 4, 5), correction=0)
    if history.shape[1] == 1:
        return largest_of(torch.full_like(mean, torch.inf), mean, deviation)
    return largest_of(root_mean_square(history.diff(dim=1)).amax(dim=1), mean, deviation)


def largest_of(changes: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
    """Return the largest change ``(b, f)`` from what a history says; infinite where that is nothing.

    Beside fields that vary, the size of one that is constant counts as its deviation, as of the density and the pressure
    in which turbulence begins; where none varies, nothing is expected to move.

    Args:
        changes: the largest change ``(b, f)`` in the history; infinite for a single frame, which shows none.
        mean: mean ``(b, f)`` of the fields.
        deviation: standard deviation of the fields ``(b, f)``.
    """
    varies = deviation > 0
    of_constant = LEAST_SHARE * mean.abs().where(varies.any(dim=1, keepdim=True), 0)
    sizes = torch.maximum(changes, LEAST_SHARE * deviation).where(varies, of_constant)
    return largest_after(torch.full_like(sizes, torch.inf), sizes, 1)


def largest_after(largest: Tensor, sizes: Tensor, ahead: int) -> Tensor:
    """Return the largest changes ``(b, f)`` per snapshot after one more change; it sets those that were unknown, infinite.

    Args:
        largest: the largest changes before, ``(b, f)``.
        sizes: root mean square ``(b, f)`` of the change; where it is zero, it says nothing.
        ahead: number of snapshots in which the change was made.
    """
    found = MAX_GROWTH * sizes / ahead
    return largest.where(largest.isfinite() | ~(found > 0), found)


def largest_so_far(largest: Tensor, size_of: Callable[[int, int], Tensor], num_steps: int, lead: int) -> Tensor:
    """Return the largest changes ``(b, f)`` after some steps of a rollout; frames are looked at while one is unknown.

    Args:
        largest: the largest changes of the history, see `largest_change`.
        size_of: function that returns the root mean square ``(b, f)`` of the change from one frame to another. Predicted
            frames are counted from 0; the last known one is number -1.
        num_steps: number of frames that were predicted.
        lead: number of them that were predicted from the same history.
    """
    for step in range(num_steps):
        if largest.isfinite().all():
            break
        ahead = step % lead + 1
        largest = largest_after(largest, size_of(step - ahead, step), ahead)
    return largest


def limited(frame: Tensor, last: Tensor, ahead: int, largest: Tensor) -> tuple[Tensor, Tensor]:
    """Scale the change from the last known frame down to the largest one in the fields where it is larger.

    Args:
        frame: predicted frame ``(b, f, z, y, x)``.
        last: last known frame.
        ahead: number of snapshots between them.
        largest: the largest changes ``(b, f)`` per snapshot.

    Returns:
        The frame, and the largest changes after it.
    """
    change = frame - last
    size = root_mean_square(change)
    largest = largest_after(largest, size, ahead)
    share = (ahead * largest / size)[..., None, None, None]
    return frame.where(share >= 1, last + share.to(change.dtype) * change), largest


def root_mean_square(values: Tensor) -> Tensor:
    """Return the root mean square of fields ``(..., z, y, x)`` over their cells; squares may overflow float32."""
    return values.double().square().mean(dim=(-3, -2, -1)).sqrt()
