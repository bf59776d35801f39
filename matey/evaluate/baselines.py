"""Linear extrapolation: like persistence, the last known frame again, a forecast without a model to compare others with."""

from __future__ import annotations

from torch import Tensor

from matey.fields import FieldBatch


def extrapolation(batch: FieldBatch, lead: float) -> Tensor:
    """Predict that every cell repeats its last change, ``u(t) + lead (u(t) - u(t-1))``.

    Args:
        batch: the histories; a history of one frame shows no change, and this frame is predicted again.
        lead: snapshots from the last frame to the predicted one; the lead time of the batch is not used.

    Returns:
        The predicted frame ``(b, f, z, y, x)`` in physical units.
    """
    if batch.num_frames == 1:
        return batch.last
    return batch.last + lead * (batch.last - batch.history[:, -2])
