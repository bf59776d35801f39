"""A forecast that needs no model, for the others to be measured against, as is persistence: the last known frame again."""

from __future__ import annotations

from torch import Tensor

from matey.fields import FieldBatch


def extrapolation(batch: FieldBatch, lead: float) -> Tensor:
    """Predict that every cell goes on changing as it did last, ``u(t) + lead (u(t) - u(t-1))``.

    Args:
        batch: the histories; one of a single frame shows no change, and its last frame is predicted again.
        lead: snapshots from the last frame to the one that is predicted; the lead time of the batch plays no part.

    Returns:
        The predicted frame ``(b, f, z, y, x)`` in physical units.
    """
    if batch.num_frames == 1:
        return batch.last
    return batch.last + lead * (batch.last - batch.history[:, -2])
