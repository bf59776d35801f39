"""Started by test_muon.py with names of engines: trains by Muon with each, beside a dense Muon in float64 that is written here.

A line per case on rank 0: the name; the losses; how far the weights are from the dense ones after the last step, over how far
they came.
"""

import json
import sys
from dataclasses import replace

import torch
from torch import nn

from matey.config import TrainSection
from matey.parallel.collectives import rank, sum_over_ranks, world_size
from matey.parallel.engine import build_engine, set_learning_rate, take_step, whole_parameters
from matey.parallel.environment import find_environment, start_processes, stop_processes
from matey.train.loss import training_loss
from tests.parallel.whole_cases import BF16, PARTED
from tests.support.models import PATCHES, make_model
from tests.support.training_cases import GLOBAL_BATCH, SCALES, samples_of

STEPS, DECAY, CLIP = 3, 0.1, 0.05
RATES = {"learning_rate": 2e-3, "muon": {"learning_rate": 0.03, "momentum": 0.9}}
CPU = {"device": "cpu"}
ENGINES = {
    "stage 0": {"zero_optimization": {"stage": 0}},
    "stage 1": {"zero_optimization": {"stage": 1}},
    "stage 2": {"zero_optimization": {"stage": 2}},
    "stage 3": {"zero_optimization": PARTED},
    "stage 3 in groups": {"zero_optimization": {**PARTED, "sub_group_size": 3000}},
    "stage 1, offloaded": {"zero_optimization": {"stage": 1, "offload_optimizer": CPU}},
    "stage 2, offloaded": {"zero_optimization": {"stage": 2, "offload_optimizer": CPU}},
    "stage 3, offloaded": {"zero_optimization": {**PARTED, "offload_optimizer": CPU, "offload_param": CPU}},
    "bf16, stage 1": {"zero_optimization": {"stage": 1}, **BF16},
    "bf16, stage 2": {"zero_optimization": {"stage": 2}, "bf16": {"enabled": True}},
    "bf16, stage 3": {"zero_optimization": PARTED, "bf16": {"enabled": True}},
}


def new_model(dtype):
    return make_model(PATCHES, torch.float32).to(dtype).train()  # in which the random weights are drawn


def rate_of(step):
    """The share of the peak learning rates in a step, for a schedule."""
    return 1 / step


def orthogonalized(matrix):
    """Newton-Schulz in exact arithmetic: each singular value goes five times through the polynomial, the vectors stay."""
    u, values, v = torch.linalg.svd(matrix, full_matrices=False)
    values = values / values.norm()
    for _ in range(5):
        values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
    return u * values @ v


def dense():
    """Losses of the steps, and the weights before the first and after the last."""
    model = new_model(torch.float64)
    parameters = dict(model.named_parameters())
    before = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    decayed = {f"{path}.weight" for path, module in model.named_modules() if isinstance(module, nn.Linear)}
    decayed |= {name for name in parameters if name.endswith(".kernels")}
    matrices = {
        name
        for name, parameter in parameters.items()
        if name.startswith("blocks.") and name.endswith("weight") and parameter.ndim == 2
    }
    others = [
        {"params": [parameters[name]], "weight_decay": DECAY if name in decayed else 0}
        for name in parameters.keys() - matrices
    ]
    adamw = torch.optim.AdamW(others, lr=RATES["learning_rate"], betas=(0.9, 0.95))
    momenta, losses = {name: torch.zeros_like(parameters[name]) for name in matrices}, []
    for step in range(1, STEPS + 1):
        batches = samples_of(step, 1, GLOBAL_BATCH, 0, 0, 1)
        batches = [replace(each, history=each.history.double(), target=each.target.double()) for each in batches]
        loss, _ = training_loss(model(batches), model.sequence_group, SCALES)
        model.zero_grad()
        loss.backward()
        losses.append(loss.item())
        nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        with torch.no_grad():
            for name in matrices:
                weight, gradient = parameters[name], parameters[name].grad
                momenta[name] = 0.9 * momenta[name] + 0.1 * gradient
                moved = orthogonalized(0.9 * momenta[name] + 0.1 * gradient)
                rows, columns = weight.shape
                rate = 0.03 * rate_of(step)
                weight *= 1 - rate * DECAY
                weight -= rate * max(1, rows / columns) ** 0.5 * moved
        for group in adamw.param_groups:
            group["lr"] = RATES["learning_rate"] * rate_of(step)
        adamw.step()
    return losses, before, {name: parameter.detach() for name, parameter in parameters.items()}


def train(config, accumulation):
    """Losses of the steps, and the whole weights after the last."""
    micro = GLOBAL_BATCH // accumulation // world_size()
    settings = {"micro_batch": micro, "accumulation": accumulation, "weight_decay": DECAY, "clip_norm": CLIP}
    run = TrainSection(steps=STEPS, optimizer="muon", **RATES, **settings)
    engine, losses = build_engine(new_model(torch.float32), run, config), []
    for step in range(1, STEPS + 1):
        set_learning_rate(engine, RATES["learning_rate"] * rate_of(step))
        losses.append(0)
        for chunk in range(accumulation):
            share = samples_of(step, accumulation, micro, chunk, rank(), world_size())
            loss, _ = training_loss(engine(share), engine.module.sequence_group, SCALES)
            engine.backward(loss)
            take_step(engine)
            losses[-1] += sum_over_ranks(loss.detach()).item() / world_size() / accumulation
    after = {name: value.double().clone() for name, value in whole_parameters(engine).items()}
    engine.destroy()
    return losses, after


def compared(config, accumulation, expected):
    dense_losses, start, dense_after = expected
    losses, after = train(config, accumulation)
    off = [(after[name] - dense_after[name]).norm() / (dense_after[name] - start[name]).norm() for name in after]
    return [losses, dense_losses, float(max(off, default=0))]


def main(names):
    start_processes(find_environment(), timeout=120, threads=1)
    expected = dense()
    for name in names:
        for accumulation in (1, 2) if name in ("stage 0", "stage 2") else (1,):
            found = compared(ENGINES[name], accumulation, expected)
            if rank() == 0:
                sys.stdout.write(f"case {json.dumps([f'{name}, accumulation {accumulation}', found])}\n")
                sys.stdout.flush()
    stop_processes()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
