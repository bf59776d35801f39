"""A stencil fitted by least squares: what a linear scheme in the neighbourhood of each cell can predict.

For every lead time of its own, the change of each field in a cell is a linear function of all fields in the window of 5 x 5
cells around it, in the last frame and in the change that led to it. It is fitted in physical units, in which the scheme of a
linear equation is the same for every sample. What is made small is the mean of the NRMSE and not of its square: every pass over
the windows after the first weights each sample by its error in the pass before.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from einops import rearrange
from torch import Tensor

from matey.data.mixture import Mixture, micro_batches
from matey.fields import FieldBatch
from matey.metrics import CELLS, NRMSE_EPSILON
from matey.studies.peers.training import Training
from matey.tokens.patches import extend

REACH = 2  # cells on either side
RIDGE = 1e-5  # of the mean square of a feature, added to each; with less, rollouts of stiff systems grow without bounds
BATCH = 16  # windows read together
MAX_WINDOWS = 1600  # more change nothing
NUM_PASSES = 3
FIRST_PASS = 0.3  # share of the cost; the other passes, over the same windows, predict them first
LEAST_ERROR = 1e-6  # NRMSE; smaller ones do not give a sample more weight


class StencilPeer:
    """The fitted stencil as a model that predicts frames.

    Attributes:
        weights: weights ``(k, f)`` by lead time in snapshots; empty before the stencil is fitted.
    """

    device = torch.device("cpu")

    def __init__(self) -> None:
        self.weights: dict[int, Tensor] = {}

    @property
    def num_parameters(self) -> int:
        """Number of fitted values."""
        return sum(weight.numel() for weight in self.weights.values())

    def predict(self, batch: FieldBatch) -> Tensor:
        """Predict the frame ``(b, f, z, y, x)`` at the batch's lead times."""
        change = self._change(batch, stencil_features(batch.history, batch.periodic))
        z, y, x = batch.grid
        return batch.last + rearrange(change, "b (z y x) f -> b f z y x", z=z, y=y, x=x).to(batch.history.dtype)

    def _change(self, batch: FieldBatch, features: Tensor) -> Tensor:
        """Return the change of every cell ``(b, z y x, f)``."""
        of_samples = zip(features, _leads(batch), strict=True)
        return torch.stack([of_sample @ self._weights_at(lead) for of_sample, lead in of_samples])

    def _weights_at(self, lead: int) -> Tensor:
        """Return the weights of a lead time; of one that no window had, those of the nearest, scaled by their ratio."""
        nearest = min(self.weights, key=lambda fitted: abs(fitted - lead))
        return self.weights[nearest] * (lead / nearest)


def fit_stencil(
    peer: StencilPeer,
    mixture: Mixture,
    bad_values: Literal["refuse", "skip"],
    seconds: float,
    now: Callable[[], float] = time.process_time,
) -> Training:
    """Fit to windows of the training stream, for at most ``seconds`` of CPU time or `MAX_WINDOWS` windows.

    Args:
        peer: the stencil, which is fitted in place.
        mixture: a training stream of one system.
        bad_values: rule for windows that are not finite, see `micro_batches`.
        seconds: largest CPU time in seconds, reading included.
        now: the clock, which is read at the start, after every batch of the first pass, and at the end.
    """
    start = now()
    num_fields, num_batches, losses = len(mixture.sets[0].fields), MAX_WINDOWS // BATCH, []
    for number in range(NUM_PASSES):
        sums: dict[int, Tensor] = defaultdict(lambda: torch.zeros((), dtype=torch.float64))
        errors = []
        stream = micro_batches(mixture, 0, num_batches, BATCH, 1, 0, 1, bad_values=bad_values)
        for done, batches in enumerate(stream, start=1):
            errors += [_add(peer, sums, batch, is_first=number == 0) for batch in batches]
            if number == 0 and now() - start > FIRST_PASS * seconds:
                num_batches = done
                break
        peer.weights = {lead: _solve(of_lead, num_fields) for lead, of_lead in sums.items()}
        losses.append(torch.cat(errors).mean().item())
    return Training(now() - start, num_batches * BATCH, tuple(losses))


def stencil_features(history: Tensor, periodic: Sequence[bool]) -> Tensor:
    """Return what the change of a cell is a linear function of, ``(b, z y x, k)`` in float64.

    For every field, in the last frame and in its last change (zero for a history of one frame): the value in the cell, and
    by how much each of its neighbours differs from it; then 1. Boundaries go on as in `matey.tokens.patches.extend`.
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


def _leads(batch: FieldBatch) -> list[int]:
    return [int(lead) for lead in batch.lead_time.tolist()]


def _add(peer: StencilPeer, sums: dict[int, Tensor], batch: FieldBatch, *, is_first: bool) -> Tensor:
    """Add a batch to the weighted sums of products, per lead ``(f, k + f, k + f)``; return the NRMSE before, ``(b, f)``."""
    features = stencil_features(batch.history, batch.periodic)
    change = rearrange(batch.known_target - batch.last, "b f z y x -> b (z y x) f").double()
    size = batch.known_target.double().square().mean(dim=CELLS).sqrt() + NRMSE_EPSILON  # (b, f)
    missed = change if is_first else change - peer._change(batch, features)
    error = missed.square().mean(dim=1).sqrt() / size
    weight = size**-2 if is_first else size**-2 / error.clamp_min(LEAST_ERROR)
    for sample, lead in enumerate(_leads(batch)):
        columns = torch.cat([features[sample], change[sample]], dim=1)
        products = columns.T @ columns
        sums[lead] = sums[lead] + weight[sample, :, None, None] * products
    return error


def _solve(sums: Tensor, num_fields: int) -> Tensor:
    """Return the weights ``(k, f)`` that solve the normal equations of each field."""
    num_features = sums.shape[1] - num_fields
    size = sums.diagonal(dim1=1, dim2=2)[:, :num_features].sqrt().clamp_min(1e-150)  # (f, k)
    square = sums[:, :num_features, :num_features] / size[:, :, None] / size[:, None, :]
    square = square + RIDGE * torch.eye(num_features, dtype=square.dtype)
    own = torch.stack([sums[field, :num_features, num_features + field] for field in range(num_fields)])
    return (torch.linalg.solve(square, own / size) / size).T
