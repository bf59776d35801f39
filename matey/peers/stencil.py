"""A linear stencil, which shows how much a linear scheme in the neighbourhood of each cell can predict.

The change of each field in a cell is a linear function, one for each lead time. Its inputs are all fields in the 5 x 5 cells
around the cell, in the last frame and in the change that led to it. Weights are for physical units, in which the scheme of a
linear equation is the same for every sample.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from einops import rearrange
from torch import Tensor

from matey.fields import FieldBatch
from matey.tokens.patches import extend

REACH = 2  # cells on either side


class StencilPeer:
    """The stencil as a model that predicts frames, on the CPU.

    Args:
        weights: weights ``(k, f)`` by lead time in snapshots; none before the stencil is fitted.
    """

    device = torch.device("cpu")

    def __init__(self, weights: dict[int, Tensor] | None = None) -> None:
        self.weights = weights or {}

    def to(self, device: torch.device) -> StencilPeer:
        """Return this peer, which stays on the CPU."""
        return self

    @property
    def num_parameters(self) -> int:
        """Number of fitted values."""
        return sum(weight.numel() for weight in self.weights.values())

    def predict(self, batch: FieldBatch) -> Tensor:
        """Predict the frame ``(b, f, z, y, x)`` at the batch's lead times."""
        change = self.change(batch, stencil_features(batch.history, batch.periodic))
        z, y, x = batch.grid
        return batch.last + rearrange(change, "b (z y x) f -> b f z y x", z=z, y=y, x=x).to(batch.history.dtype)

    def change(self, batch: FieldBatch, features: Tensor) -> Tensor:
        """Return the change of every cell ``(b, z y x, f)`` from the features ``(b, z y x, k)`` of a batch."""
        of_samples = zip(features, leads_of(batch), strict=True)
        return torch.stack([of_sample @ self._weights_at(lead) for of_sample, lead in of_samples])

    def _weights_at(self, lead: int) -> Tensor:
        """Return the weights of a lead time; without a fit, those of the nearest lead time, scaled by the ratio of both."""
        nearest = min(self.weights, key=lambda fitted: abs(fitted - lead))
        return self.weights[nearest] * (lead / nearest)


def stencil_features(history: Tensor, periodic: Sequence[bool]) -> Tensor:
    """Return the inputs of the linear function for the change of each cell, ``(b, z y x, k)`` in float64.

    For every field, in the last frame and in its last change (zero for a history of one frame): the value in the cell, and
    the difference of each of its neighbours from it; then 1. Boundaries continue as in `matey.tokens.patches.extend`.
    """
    last = history[:, -1].double()
    before = history[:, -2].double() if history.shape[1] > 1 else last
    values = torch.cat([last, last - before], dim=1)
    grid = values.shape[2:]
    halo = [REACH if size > 1 else 0 for size in grid]
    windows = extend(values, [size + reach for size, reach in zip(grid, halo, strict=True)], periodic, before=halo)
    for axis, reach in enumerate(halo, start=2):
        windows = windows.unfold(axis, 2 * reach + 1, 1)
    windows = windows.flatten(5)  # (b, 2 f, z, y, x, w)
    middle = windows.shape[-1] // 2
    around = torch.cat([windows[..., :middle], windows[..., middle + 1 :]], dim=-1) - values[..., None]
    features = rearrange(torch.cat([values[..., None], around], dim=-1), "b c z y x w -> b (z y x) (c w)")
    return torch.cat([features, torch.ones_like(features[..., :1])], dim=-1)


def leads_of(batch: FieldBatch) -> list[int]:
    """Return the lead time of each sample in whole snapshots."""
    return [int(lead) for lead in batch.lead_time.tolist()]
