"""Rolls a model out over its own predictions.

In steps of one snapshot every frame is predicted from the frames right before it. In steps of ``lead`` snapshots the next
``lead`` frames are predicted directly from the same history, each at its own lead time, before the newest of them become the
history:

    lead 1    t0 -> t1 -> t2 -> t3 -> t4 -> t5 -> t6
    lead 3    t0 -> t1,  t0 -> t2,  t0 -> t3;  t3 -> t4,  t3 -> t5,  t3 -> t6

Every frame is there in both, for as many forecasts; errors are passed on ``lead`` times less often in the second.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor

from matey.fields import FieldBatch


class Forecaster(Protocol):
    """A model that predicts frames: a `MateyModel`, or one of its peers."""

    @property
    def device(self) -> torch.device:
        """Where its weights are."""

    def predict(self, batch: FieldBatch) -> Tensor:
        """Return the frame ``(b, f, z, y, x)`` at the batch's lead times, in physical units."""


def rollout(model: Forecaster, batch: FieldBatch, num_steps: int, lead: int = 1) -> Iterator[Tensor]:
    """Predict ``num_steps`` consecutive frames, each one snapshot after the one before.

    Args:
        model: the model; it predicts a frame from the newest frames known, which are its own predictions as soon as
            there are any.
        batch: the histories; its lead time and target are ignored.
        num_steps: number of frames.
        lead: number of frames that are predicted from the same history, the last of them at this lead time in
            snapshots. It should be no longer than the lead times that the model was trained on.

    Yields:
        Frames ``(b, f, z, y, x)`` in physical units, on the model's device.
    """
    batch = replace(batch.to(model.device), target=None)
    for first in range(0, num_steps, lead):
        frames = []
        for ahead in range(1, min(lead, num_steps - first) + 1):
            frames.append(model.predict(replace(batch, lead_time=torch.full_like(batch.lead_time, ahead))))
            yield frames[-1]
        known = torch.cat([batch.history, torch.stack(frames, dim=1)], dim=1)
        batch = replace(batch, history=known[:, -batch.num_frames :])
