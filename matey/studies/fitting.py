"""Trains a peer on the windows of MATEY's own run for a given cost, saves it, and scores it.

A network is trained by AdamW with the loss of the run. A stencil is fitted by least squares, which minimises the mean NRMSE,
not its square: every pass over the windows after the first weights each sample by its error in the previous pass.
"""

from __future__ import annotations

import math
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from einops import rearrange
from torch import Tensor

from matey.benchmark.step import now as time_of
from matey.checkpoints.run_files import RECORDS
from matey.checkpoints.trained import write_peer
from matey.config import RunConfig
from matey.data import DataError
from matey.data.split_record import seen_text
from matey.data.stream import micro_batches
from matey.data.windows import Mixture
from matey.evaluate.evaluation import score, tasks_of
from matey.evaluate.held_out import hold_out, sound_beginnings
from matey.evaluate.records import write_records
from matey.fields import FieldBatch, has_gaps
from matey.metrics import CELLS, NRMSE_EPSILON, nrmse
from matey.mistakes import Mistake, one_line
from matey.parallel.environment import forget_tiny_numbers
from matey.peers.networks import NetworkPeer, PeerFacts, untrained
from matey.peers.stencil import StencilPeer, leads_of, stencil_features
from matey.process.start import keep_freed_memory
from matey.studies.cases import StudyError
from matey.studies.trainings import device, protocol_of
from matey.train.loss import LossScale
from matey.train.run_data import RunData, loss_scales, open_data

WARMUP = 0.03  # share of the cost during which the learning rate rises
BETAS, WEIGHT_DECAY, CLIP_NORM = (0.9, 0.95), 0.01, 1.0
RIDGE = 1e-5  # share of a feature's mean square added to it; with less, rollouts of stiff systems grow without bounds
STEP = 4  # number of samples in a step of a network
BATCH = 16  # number of windows of a stencil read together
MAX_WINDOWS = 1600  # more windows do not change the result
NUM_PASSES = 3
FIRST_PASS = 0.3  # share of the cost; the other passes over the same windows also predict them
LEAST_ERROR = 1e-6  # NRMSE; smaller ones do not give a sample more weight


@dataclass(frozen=True)
class Training:
    """The costs and the losses of a training.

    Attributes:
        seconds: CPU time in seconds, or time on the GPU.
        steps: number of optimizer steps; for a stencil, of windows.
        losses: loss of every step.
    """

    seconds: float
    steps: int
    losses: tuple[float, ...]


# One learning rate for both of the demo's systems, chosen on the validation part of its data.
RATES = {"ResNet": 6e-3, "small U": 4e-3, "U-Net": 4e-3, "FNO": 6e-3}


def run_peer(kind: str, run: RunConfig, seconds: float, max_windows: int, folder: Path) -> dict[str, float]:
    """Train a peer for a given cost, write it and its scores into a folder, and return what it cost and its size.

    Args:
        kind: kind of the peer, one of `matey.peers.networks.PEERS`.
        run: the run, whose data and seed determine the windows.
        seconds: largest cost in seconds, of one thread of a CPU or of a GPU.
        max_windows: largest number of windows to score it on, per lead.
        folder: folder of the peer.

    Raises:
        StudyError: the data cannot be read, or does not suit the peer, or memory does not suffice.
    """
    folder.mkdir(parents=True, exist_ok=True)
    keep_freed_memory()  # as MATEY's training does
    forget_tiny_numbers()
    try:
        data = open_data(run)
        torch.manual_seed(run.train.seed)
        peer = untrained(kind, run.data.history, len(data.fields)).to(torch.device(device()))
        if isinstance(peer, StencilPeer):
            training = fit_stencil(peer, data.mixture, run.data.bad_values, seconds)
        else:
            training = train_network(peer, run, data, loss_scales(run, data), RATES[kind], seconds)
        facts = PeerFacts(
            kind=kind,
            system=data.sets[0].system,
            fields=data.sets[0].fields,
            history=run.data.history,
            lead_max=run.data.lead_max,
        )
        write_peer(folder, peer, facts, data.record, seen_text(data.prints, [split.train for split in data.splits]))
        protocol, held_out = (
            protocol_of(run.data.lead_max, max_windows),
            hold_out(data.sets, "test", run.data.history, run.data),
        )
        if run.data.bad_values == "skip":  # as launch/evaluate.py does
            longest = held_out.num_frames + max(protocol.rollout_steps, *protocol.leads)
            held_out = sound_beginnings(held_out, longest)
        records = score(peer, held_out, protocol, tasks_of(held_out, protocol)).records
    except (DataError, torch.OutOfMemoryError) as error:
        raise StudyError(f"{folder.name}: {one_line(error)}") from None
    write_records(records, folder / RECORDS)
    return {"seconds": training.seconds, "parameters": peer.num_parameters}


def train_network(
    peer: NetworkPeer,
    run: RunConfig,
    data: RunData,
    scales: Mapping[str, LossScale],
    learning_rate: float,
    seconds: float,
    now: Callable[[], float] | None = None,
) -> Training:
    """Train by AdamW with a short warm-up and a cosine schedule over the cost, until another step would exceed it.

    Args:
        peer: the network; trained in place.
        run: the run, whose data section and seed determine the windows.
        data: the data of the run; its training stream gives the windows.
        scales: the NRMSE that counts as a loss of 1, for each system.
        learning_rate: peak learning rate.
        seconds: largest cost in seconds, reading included.
        now: the clock, read at the start and after every step; by default CPU seconds of this process or, on a GPU,
            wall time after its work is finished.
    """
    weights = list(peer.network.parameters())
    # An FNO's weights are complex, and the fused kernel supports only real ones.
    is_real = all(weight.is_floating_point() for weight in weights)
    optimizer = torch.optim.AdamW(weights, learning_rate, betas=BETAS, weight_decay=WEIGHT_DECAY, fused=is_real)
    stream = micro_batches(data.mixture, 0, sys.maxsize, STEP, 1, 0, 1, bad_values=run.data.bad_values)
    now = now or (partial(time_of, "cuda") if peer.device.type == "cuda" else time.process_time)
    losses: list[float] = []
    start, spent, longest = now(), 0.0, 0.0
    peer.network.train()
    while not losses or spent + longest < seconds:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * rate_factor(spent / seconds)
        errors = []
        for batch in next(stream):
            batch = batch.to(peer.device)
            relative = nrmse(peer.forecast(batch), batch.known_target)
            errors.append(scales[batch.system].loss(relative, batch.lead_time))
        loss = torch.cat(errors).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, CLIP_NORM)
        optimizer.step()
        losses.append(loss.item())
        before, spent = spent, now() - start
        longest = max(0.9 * longest, spent - before)
    return Training(spent, len(losses), tuple(losses))


def rate_factor(share: float) -> float:
    """Return the learning rate divided by its peak, after a share of the cost."""
    if share < WARMUP:
        return max(share / WARMUP, 0.01)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (share - WARMUP) / (1 - WARMUP))))


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
    return Training(now() - start, num_batches * BATCH, tuple(losses))


def _add(peer: StencilPeer, sums: dict[int, Tensor], batch: FieldBatch, *, is_first: bool) -> Tensor:
    """Add a batch to the weighted sums of products, ``(f, k + f, k + f)`` per lead; return the current NRMSE ``(b, f)``."""
    if has_gaps(batch.history):
        raise Mistake(
            f"A stencil needs data in all cells, and some of {batch.system} hold none (NaN); leave its data out."
        )
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
