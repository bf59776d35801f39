"""Rolls a model out: forecasts many snapshots from the model's own predictions.

In steps of one snapshot, every frame is predicted from the frames just before it. In steps of ``lead`` snapshots, the next
``lead`` frames are predicted from the same history, each at its own lead time; then the newest frames become the history:

    lead 1    t0 -> t1 -> t2 -> t3 -> t4 -> t5 -> t6
    lead 3    t0 -> t1,  t0 -> t2,  t0 -> t3;  t3 -> t4,  t3 -> t5,  t3 -> t6

Both give every frame with the same number of forecasts; in the second, errors are passed on ``lead`` times less often.

Far from its training data, a model may amplify its own errors without end. The change of a field from one snapshot to the next
is therefore limited by the changes in the given history or, if these are unknown, by the first change of the rollout itself.
The error then grows at most in proportion to the number of steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from matey.evaluate.conservation import Totals, kept
from matey.evaluate.forecaster import Forecaster
from matey.fields import FieldBatch

MAX_GROWTH = 4.0
"""Largest ratio of a change to the changes in the history, or to the rollout's first change.

The true ratio, from any frame on, is at most 2.2 in five of the seven systems simulated here, and 3.4 for the velocities of
compressible_rand; for the potential temperature of colliding thermals just released it is up to 10, see `LEAST_SHARE`.
"""

LEAST_SHARE = 0.1
"""Least change that a history counts with, as a share of the field's deviation, since a motion may only be starting."""


def rollout(
    model: Forecaster,
    batch: FieldBatch,
    num_steps: int,
    lead: int = 1,
    *,
    largest: Tensor | None = None,
    totals: Totals | None = None,
) -> Iterator[Tensor]:
    """Predict ``num_steps`` consecutive frames, each one snapshot after the previous one.

    Args:
        model: the model; it predicts a frame from the newest known frames, its own predictions as soon as there are
            any.
        batch: the histories; its lead time and target are ignored. Given fields that vary in time must reach as far as
            the forecast.
        num_steps: number of frames.
        lead: number of frames predicted from the same history, the last of them at this lead time in snapshots. It
            should not exceed the lead times in the model's training.
        largest: the largest changes so far, see `largest_so_far`, of a rollout that this one continues; by default those of
            the histories in ``batch``.
        totals: totals that every frame keeps, see `matey.evaluate.conservation`; by default none.

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
            frame, after = limited(frame, batch.last, ahead, largest)
            if totals:
                frame = kept(frame, batch, totals)
                after = largest_after(largest, root_mean_square(frame - batch.last), ahead)  # as read from a file later
            largest = after
            frames.append(frame)
            yield frame


def largest_change(history: Tensor) -> Tensor:
    """Return the root mean square of the largest change from one snapshot to the next that a rollout may make.

    Args:
        history: the given frames ``(b, t, f, z, y, x)``.

    Returns:
        ``(b, f)``; infinite (unknown) if the frames do not determine it.
    """
    deviation, mean = torch.std_mean(history.double(), dim=(1, 3, 4, 5), correction=0)
    if history.shape[1] == 1:
        return largest_of(torch.full_like(mean, torch.inf), mean, deviation)
    return largest_of(root_mean_square(history.diff(dim=1)).amax(dim=1), mean, deviation)


def largest_of(changes: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
    """Return the largest allowed change ``(b, f)`` from numbers of a history; infinite if these do not determine it.

    If other fields vary, the size of a constant field counts as its deviation, as for the uniform density and pressure in
    which turbulence begins; if no field varies, no motion is expected.

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
    """Return the largest changes ``(b, f)`` per snapshot after one more change, which replaces those unknown (infinite).

    Args:
        largest: the largest changes before, ``(b, f)``.
        sizes: root mean square ``(b, f)`` of the change; zeros are ignored.
        ahead: number of snapshots over which the change was made.
    """
    found = MAX_GROWTH * sizes / ahead
    return largest.where(largest.isfinite() | ~(found > 0), found)


def largest_so_far(largest: Tensor, size_of: Callable[[int, int], Tensor], num_steps: int, lead: int) -> Tensor:
    """Return the largest changes ``(b, f)`` after some steps of a rollout; frames are read only while one is unknown.

    Args:
        largest: the largest changes of the history, see `largest_change`.
        size_of: function that returns the root mean square ``(b, f)`` of the change from one frame to another. Predicted
            frames are counted from 0; the last known one is number -1.
        num_steps: number of frames that were predicted.
        lead: number of frames predicted from the same history.
    """
    for step in range(num_steps):
        if largest.isfinite().all():
            break
        ahead = step % lead + 1
        largest = largest_after(largest, size_of(step - ahead, step), ahead)
    return largest


def limited(frame: Tensor, last: Tensor, ahead: int, largest: Tensor) -> tuple[Tensor, Tensor]:
    """Scale the change from the last known frame down to the largest allowed one, in the fields that exceed it.

    Args:
        frame: predicted frame ``(b, f, z, y, x)``.
        last: last known frame.
        ahead: number of snapshots between the two frames.
        largest: the largest changes ``(b, f)`` per snapshot.

    Returns:
        The limited frame, and the largest changes after it.
    """
    change = frame - last
    size = root_mean_square(change)
    largest = largest_after(largest, size, ahead)
    share = (ahead * largest / size)[..., None, None, None]
    return frame.where(share >= 1, last + share.to(change.dtype) * change), largest


def root_mean_square(values: Tensor) -> Tensor:
    """Return the root mean square of fields ``(..., z, y, x)`` over their cells; squares may overflow float32."""
    return values.double().square().mean(dim=(-3, -2, -1)).sqrt()
