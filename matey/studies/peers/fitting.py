"""Fits a stencil by least squares.

The fit minimises the mean NRMSE, not its square: every pass over the windows after the first weights each sample by its error
in the previous pass.
"""

from __future__ import annotations

import math
import os
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from einops import rearrange
from torch import Tensor

from matey.data.mixture import Mixture
from matey.data.stream import micro_batches
from matey.data.trajectories import DataError, TrajectorySet
from matey.fields import FieldBatch
from matey.metrics import CELLS, NRMSE_EPSILON
from matey.peers.stencil import NUM_COPIES, StencilPeer, leads_of, num_features, stencil_features
from matey.studies.peers.training import Training

RIDGE = 1e-5  # share of a feature's mean square added to it; with less, rollouts of stiff systems grow without bounds
BATCH = 16  # number of windows read together
MAX_WINDOWS = 1600  # more windows do not change the result
NUM_PASSES = 3
FIRST_PASS = 0.3  # share of the cost; the other passes over the same windows also predict them
LEAST_ERROR = 1e-6  # NRMSE; smaller ones do not give a sample more weight


def fit_stencil(
    peer: StencilPeer,
    mixture: Mixture,
    bad_values: Literal["refuse", "skip"],
    seconds: float,
    now: Callable[[], float] = time.process_time,
) -> Training:
    """Fit a stencil to windows of the training stream, for at most ``seconds`` of CPU time or `MAX_WINDOWS` windows.

    Args:
        peer: the stencil, fitted in place.
        mixture: a training stream of one system.
        bad_values: rule for windows that are not finite, see `micro_batches`.
        seconds: largest CPU time in seconds, reading included.
        now: the clock, read at the start, after every batch of the first pass, and at the end.
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
    return Training(now() - start, num_batches * BATCH, num_batches * BATCH, tuple(losses))


def check_memory(sets: Sequence[TrajectorySet], lead_max: int, memory: int | None = None) -> None:
    """Raise DataError if the features of a batch and the sums of their products would not fit into memory.

    Args:
        sets: the data.
        lead_max: largest lead time in snapshots; each lead time has its own sums.
        memory: bytes of memory; by default the machine's.
    """
    memory = memory or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for data in sets:
        grid = max((about.grid for about in data.trajectories), key=math.prod)
        num_fields, count = len(data.fields), num_features(len(data.fields), grid)
        of_batch = NUM_COPIES * BATCH * math.prod(grid) * count
        of_sums = (lead_max + 2) * num_fields * (count + num_fields) ** 2  # solving copies the sums of one lead time
        needed = 8 * (of_batch + of_sums)
        if needed > memory:
            raise DataError(
                f"{data.system}: the stencil sees {count:,} numbers around each cell of {num_fields} fields on a grid of "
                f"{grid}, and to fit it takes {needed / 2**30:,.1f} GiB, of which this machine has {memory / 2**30:,.1f}; "
                "compare on data with fewer fields, on coarser grids, or on another machine."
            )


def _add(peer: StencilPeer, sums: dict[int, Tensor], batch: FieldBatch, *, is_first: bool) -> Tensor:
    """Add a batch to the weighted sums of products, ``(f, k + f, k + f)`` per lead; return the current NRMSE ``(b, f)``."""
    features = stencil_features(batch.history, batch.periodic)
    change = rearrange(batch.known_target - batch.last, "b f z y x -> b (z y x) f").double()
    size = batch.known_target.double().square().mean(dim=CELLS).sqrt() + NRMSE_EPSILON  # (b, f)
    missed = change if is_first else change - peer.change(batch, features)
    error = missed.square().mean(dim=1).sqrt() / size
    weight = size**-2 if is_first else size**-2 / error.clamp_min(LEAST_ERROR)
    for sample, lead in enumerate(leads_of(batch)):
        columns = torch.cat([features[sample], change[sample]], dim=1)
        products = columns.T @ columns
        sums[lead] = sums[lead] + weight[sample, :, None, None] * products
    return error


def _solve(sums: Tensor, num_fields: int) -> Tensor:
    """Return the weights ``(k, f)`` that solve the normal equations of each field."""
    count = sums.shape[1] - num_fields
    size = sums.diagonal(dim1=1, dim2=2)[:, :count].sqrt().clamp_min(1e-150)  # (f, k)
    square = sums[:, :count, :count] / size[:, :, None] / size[:, None, :]
    square = square + RIDGE * torch.eye(count, dtype=square.dtype)
    own = torch.stack([sums[field, :count, count + field] for field in range(num_fields)])
    return (torch.linalg.solve(square, own / size) / size).T
