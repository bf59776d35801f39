"""Trains a network for a given cost on the windows and with the loss of MATEY's own run."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch

from matey.benchmark.machine import now as time_of
from matey.config import RunConfig
from matey.data.stream import micro_batches
from matey.metrics import nrmse
from matey.peers.inputs import NetworkPeer
from matey.train.loss import LossScale
from matey.train.run_data import RunData

WARMUP = 0.03  # share of the cost during which the learning rate rises
BETAS, WEIGHT_DECAY, CLIP_NORM = (0.9, 0.95), 0.01, 1.0


@dataclass(frozen=True)
class Settings:
    """Settings of a network's training.

    Attributes:
        batch: number of samples in a step.
        learning_rate: peak learning rate.
    """

    batch: int
    learning_rate: float


@dataclass(frozen=True)
class Training:
    """The costs and the losses of a training.

    Attributes:
        seconds: CPU time in seconds, or time on the GPU.
        steps: number of optimizer steps; for a stencil, of windows.
        num_samples: number of training samples, repetitions included.
        losses: loss of every step.
    """

    seconds: float
    steps: int
    num_samples: int
    losses: tuple[float, ...]


def clock(device: torch.device) -> Callable[[], float]:
    """Return a clock of the cost so far: CPU seconds of this process or, on a GPU, wall time after its work is finished."""
    return partial(time_of, "cuda") if device.type == "cuda" else time.process_time


def train_network(
    peer: NetworkPeer,
    run: RunConfig,
    data: RunData,
    scales: Mapping[str, LossScale],
    settings: Settings,
    seconds: float,
    now: Callable[[], float] | None = None,
) -> Training:
    """Train by AdamW with a short warm-up and a cosine schedule over the cost, until another step would exceed it.

    Args:
        peer: the network; trained in place.
        run: the run, whose data section and seed determine the windows.
        data: the data of the run; its training stream gives the windows.
        scales: the NRMSE that counts as a loss of 1, for each system.
        settings: the settings of this network.
        seconds: largest cost in seconds, reading included.
        now: the clock, read at the start and after every step; by default `clock` of the network's device.
    """
    weights = list(peer.network.parameters())
    # An FNO's weights are complex, and the fused kernel supports only real ones.
    is_real = all(weight.is_floating_point() for weight in weights)
    optimizer = torch.optim.AdamW(
        weights, settings.learning_rate, betas=BETAS, weight_decay=WEIGHT_DECAY, fused=is_real
    )
    stream = micro_batches(data.mixture, 0, sys.maxsize, settings.batch, 1, 0, 1, bad_values=run.data.bad_values)
    now = now or clock(peer.device)
    losses: list[float] = []
    start, spent, longest = now(), 0.0, 0.0
    peer.network.train()
    while not losses or spent + longest < seconds:
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * rate_factor(spent / seconds)
        errors = []
        for batch in next(stream):
            batch = batch.to(peer.device)
            relative = nrmse(peer.forecast(batch), batch.known_target).mean(dim=1)
            errors.append(relative / scales[batch.system].at(batch.lead_time))
        loss = torch.cat(errors).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, CLIP_NORM)
        optimizer.step()
        losses.append(loss.item())
        before, spent = spent, now() - start
        longest = max(0.9 * longest, spent - before)
    return Training(spent, len(losses), len(losses) * settings.batch, tuple(losses))


def rate_factor(share: float) -> float:
    """Return the learning rate divided by its peak, after a share of the cost."""
    if share < WARMUP:
        return max(share / WARMUP, 0.01)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (share - WARMUP) / (1 - WARMUP))))
