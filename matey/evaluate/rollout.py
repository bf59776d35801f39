"""Rolls a model out over its own predictions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from matey.fields import FieldBatch
from matey.model.matey import MateyModel


def rollout(model: MateyModel, batch: FieldBatch, num_steps: int) -> Iterator[Tensor]:
    """Predict ``num_steps`` consecutive frames, each one snapshot after the one before.

    Every frame is predicted with lead time 1 from the newest frames of the history, which are the model's own
    predictions as soon as there are any. The lead time and the target of ``batch`` play no part.

    Yields:
        ``(b, f, z, y, x)`` in physical units, on the model's device.
    """
    batch = batch.to(model.device)
    batch = replace(batch, lead_time=torch.ones_like(batch.lead_time), target=None)
    for _ in range(num_steps):
        frame = model.predict(batch)
        yield frame
        batch = replace(batch, history=torch.cat([batch.history[:, 1:], frame[:, None]], dim=1))
