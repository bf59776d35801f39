"""What the network returns: the predicted frame, as far as this rank decoded it."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from matey.fields import FieldBatch


class Forecast(NamedTuple):
    """The predicted frame of one `FieldBatch`: base + scale x decoded.

    A tuple, since DeepSpeed looks for tensors in tuples, lists and dicts only. Where it finds none it does not hear of the
    backward pass, and counts gradients of all but the last micro-step more than once (bfloat16 with stage 1, `overlap_comm`).

    Attributes:
        batch: what was predicted from.
        base: ``(b, f, z, y, x)`` or ``(b, f, 1, 1, 1)`` in physical units; the last frame when the change is predicted.
        scale: ``(b, f)`` in physical units.
        decoded: ``(b, f, z, y, x)`` in units of the scale, relative to the base; zero in cells of other ranks.
        own: ``(b, 1, z, y, x)`` of bool, the cells that are this rank's; None where all are.
        num_tokens: tokens of the batch that this rank processed.
    """

    batch: FieldBatch
    base: Tensor
    scale: Tensor
    decoded: Tensor
    own: Tensor | None
    num_tokens: int

    def in_scale(self, field: Tensor) -> Tensor:
        """Express a field ``(b, f, z, y, x)`` in the units of what is decoded."""
        return (field - self.base) / self.scale[..., None, None, None]

    def field(self) -> Tensor:
        """Return the predicted frame, ``(b, f, z, y, x)`` in physical units; the base in cells of other ranks."""
        return self.base + self.scale[..., None, None, None] * self.decoded.to(self.scale.dtype)
