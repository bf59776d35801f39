"""Run by a launcher: histories pushed forward by every ZeRO stage and sequence group, and a step of training on them.

Prints a line per case on rank 0: its name, the lead times left, the new histories and the loss. With the argument ``parts``,
it says how far losses and gradients are off those of one process where each rank has read a part.
"""

import json
import sys
from dataclasses import replace
from types import SimpleNamespace

import torch
import torch.distributed as dist

from matey.config import TrainSection
from matey.model.boxes import share_of
from matey.model.sequence_group import SequenceGroup
from matey.parallel.collectives import rank, world_size
from matey.parallel.engine import build_engine, take_step
from matey.parallel.environment import find_environment, start_processes, stop_processes
from matey.parallel.exchange import Topology
from matey.parallel.sequence import DistributedSequenceGroup
from matey.train.ahead import push_forward, rolled_out
from matey.train.loss import LossScale, training_loss
from tests.support.models import VOCABULARY, make_batch, make_model
from tests.support.parts import off, parts_of

PATCHES = ((1, 1, 8, 8), (1, 1, 4, 4))
SCALES = {"shallow_water": LossScale(), "diffusion_reaction": LossScale()}


def batches():
    """Two batches; in the first a forcing is given, which changes from frame to frame."""
    first = make_batch(num_samples=3, grid=(1, 20, 16), seed=3)
    force = torch.randn(3, 6, 1, 1, 20, 16, generator=torch.Generator().manual_seed(0))
    return [
        replace(first, given_fields=("force",), given=force),
        make_batch("diffusion_reaction", VOCABULARY[1:], 2, 2, (1, 16, 24), seed=2),
    ]


def told_model(dtype=torch.float32, **settings):
    """A model that takes a forcing."""
    return make_model(PATCHES, dtype, fields=(*VOCABULARY, "force"), given=("force",), **settings)


def run(stage, size):
    model = told_model(drop_path=0.3)
    if size > 1:
        model.sequence_group = DistributedSequenceGroup(Topology(rank(), world_size(), size, 3))
    engine = build_engine(
        model.train(), TrainSection(steps=1, learning_rate=1e-3), {"zero_optimization": {"stage": stage}}
    )
    pushed = push_forward(engine, batches(), 2)
    assert engine.module.training
    history = [batch.history.flatten().tolist() for batch in pushed]
    lead_time = [batch.lead_time.tolist() for batch in pushed]
    draws = [torch.arange(batch.num_samples) for batch in pushed]
    pushed = [replace(batch, draw=draw) for batch, draw in zip(pushed, draws, strict=True)]
    loss, _ = training_loss(engine(pushed), engine.module.sequence_group, SCALES)
    engine.backward(loss * size)
    norm = take_step(engine)
    total = loss.detach().clone()
    engine.destroy()
    return lead_time, history, [total.item(), norm.item()]


def off_of_parts(network):
    """How far loss and gradients of histories that are pushed forward in parts are off those of one process.

    The second number says how far the loss is off without pushing forward.
    """
    model, size = told_model(torch.float64, network=network), world_size()
    shared = DistributedSequenceGroup(Topology(rank(), size, size, 3))
    first = batches()[0]
    doubled = {"history": first.history.double(), "target": first.target.double(), "given": first.given.double()}
    whole = [
        replace(first, **doubled, periodic=(False, True, False)),
        make_batch("diffusion_reaction", VOCABULARY[1:], 2, 2, (1, 16, 24), seed=2, dtype=torch.float64),
    ]
    parts = parts_of(whole, share_of(model.config, shared.ranks))
    engine = SimpleNamespace(module=model, device=model.device, eval=model.eval, train=model.eval)
    engine = type("Engine", (), {**vars(engine), "__call__": lambda self, batches: model(batches)})()
    found = []
    for sequence_group, batches_of, num_steps in ((SequenceGroup(), whole, 2), (shared, parts, 2), (shared, whole, 0)):
        model.sequence_group = sequence_group
        model.zero_grad()
        forecasts = model(rolled_out(engine, batches_of, num_steps))
        loss, _ = training_loss(forecasts, sequence_group, SCALES)
        loss.backward()
        gradients = [parameter.grad for parameter in model.parameters()]
        for gradient in gradients if sequence_group is shared else ():
            dist.all_reduce(gradient, group=shared.group)
        found.append([loss.detach(), *(gradient.clone() for gradient in gradients)])
    assert not parts  # what was read is let go of
    expected, ours, still = found
    return max(float(off(*pair)) for pair in zip(ours, expected, strict=True)), float(off(still[0], expected[0]))


def main():
    start_processes(find_environment(), timeout=120, threads=1)
    for stage in (0, 1, 2, 3) if len(sys.argv) == 1 else ():
        case = run(stage, world_size())
        if rank() == 0:
            sys.stdout.write(f"case {json.dumps([f'stage {stage}, P {world_size()}', *case])}\n")
            sys.stdout.flush()
    for network in ("matey", "paper") if len(sys.argv) > 1 else ():
        found = off_of_parts(network)
        if rank() == 0:
            sys.stdout.write(f"parts {json.dumps(found)}\n")
    stop_processes()


if __name__ == "__main__":
    main()
