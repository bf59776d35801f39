"""Forecasts that need no model, for the others to be measured against."""

from __future__ import annotations

from torch import Tensor

from matey.fields import FieldBatch


def persistence(batch: FieldBatch) -> Tensor:
    """Predict the last known frame again, whatever the lead time: ``(b, f, z, y, x)`` in physical units."""
    return batch.last
