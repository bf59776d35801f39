"""The predicted frames that the network returns, as far as this rank decoded them, and their error against the targets."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from matey.fields import FieldBatch
from matey.metrics import nrmse
from matey.model.seam import Seam
from matey.tokens.tiles import Tiles


class Forecast(NamedTuple):
    """The predicted frame of one `FieldBatch`: base + scale x decoded.

    A tuple, since DeepSpeed looks for tensors in tuples, lists and dicts only. Where it finds none it does not hear of the
    backward pass, and counts gradients of all but the last micro-step more than once (bfloat16 with stage 1, `overlap_comm`).

    Attributes:
        batch: the histories that the forecast starts from.
        base: ``(b, f, z, y, x)``, the field that the decoded values are added to, in physical units; the last frame
            when the change is predicted.
        scale: ``(b, f)``, the factor on the decoded values, in physical units.
        tiles: the ``k`` tiles that hold cells of this rank.
        own: mask ``(k, z, y, x)`` of the cells in the tiles that this rank predicts.
        decoded: ``(k, f, z, y, x)``, decoded values relative to the base in units of the scale; valid in own cells
            only.
        num_tokens: number of tokens of the batch that this rank processed.
        seam: the seam that adds up what the ranks of a sequence group decoded.
    """

    batch: FieldBatch
    base: Tensor
    scale: Tensor
    tiles: Tiles
    own: Tensor
    decoded: Tensor
    num_tokens: int
    seam: Seam

    def errors(self, target: Tensor) -> Tensor:
        """Return by how much this rank's cells miss a target ``(b, f, z, y, x)``.

        In the tiles ``(k, f, z, y, x)`` and units of ``decoded``; zero in cells that are not own.
        """
        scale = self.scale[self.tiles.sample][..., None, None, None]
        wanted = (self.tiles.cut(target) - self.tiles.cut(self.base)) / scale
        return (self.decoded.to(target.dtype) - wanted).where(self.own[:, None], 0)

    def frame(self) -> Tensor:
        """Return what is decoded as a frame ``(b, f, z, y, x)``, zero in cells that are not own."""
        return self.tiles.put(self.decoded.where(self.own[:, None], 0))

    def field(self) -> Tensor:
        """Return the predicted frame, ``(b, f, z, y, x)`` in physical units, from the cells of all ranks that share it."""
        decoded = self.seam.reduce(self.frame().to(self.scale.dtype))
        return self.base + self.scale[..., None, None, None] * decoded


class Forecasts(list[Forecast]):
    """The forecasts of a micro-batch, one for each `FieldBatch`."""

    @property
    def loss(self) -> Tensor:
        """The NRMSE, mean over fields and samples, against the targets, which all batches must have."""
        return torch.cat([nrmse(each.field(), each.batch.known_target).mean(dim=1) for each in self]).mean()
