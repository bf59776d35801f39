"""Run by a launcher: a few steps of training with every ZeRO stage and sequence group that the ranks allow.

Prints a line per case on rank 0: its name, the losses and norms of the steps, and a fingerprint of the weights.
"""

import itertools
import json
import sys
from dataclasses import fields, replace
from functools import cache

import cpuinfo
import torch

from matey.config import TrainSection
from matey.parallel.collectives import rank, world_size
from matey.parallel.engine import build_engine, take_step, whole_parameters
from matey.parallel.environment import find_environment, start_processes, stop_processes
from matey.parallel.exchange import Topology
from matey.parallel.sequence import DistributedSequenceGroup
from matey.train.loss import LossScale, training_loss
from tests.support.models import VOCABULARY, make_batch, make_model

# DeepSpeed asks for every engine whose optimizer is offloaded, and each answer takes an interpreter of its own.
cpuinfo.get_cpu_info = cache(cpuinfo.get_cpu_info)

STEPS, GLOBAL_BATCH = 5, 4
SCALES = {"shallow_water": LossScale(), "diffusion_reaction": LossScale()}


def samples_of(step, accumulation, micro, chunk, data_rank, num_data_ranks):
    """The share of one data rank of a global batch that is the same however it is cut: of one system or of both."""
    first = (chunk * num_data_ranks + data_rank) * micro
    swe, reaction = [], []
    for seed in range(step * GLOBAL_BATCH + first, step * GLOBAL_BATCH + first + micro):
        if seed % 3 == 0:
            reaction.append(make_batch("diffusion_reaction", VOCABULARY[1:], 1, 2, (1, 16, 24), seed=seed))
        else:
            swe.append(make_batch(num_samples=1, frames=2, grid=(1, 20, 16), seed=seed))
    return [together(samples) for samples in (swe, reaction) if samples]


def together(samples):
    first, *_ = samples
    tensors = [field.name for field in fields(first) if isinstance(getattr(first, field.name), torch.Tensor)]
    return replace(first, **{name: torch.cat([getattr(sample, name) for sample in samples]) for name in tensors})


def train(stage, size, accumulation, clip, offload, recompute, freeze, is_compiled):
    topology = Topology(rank(), world_size(), size, 3)
    micro = GLOBAL_BATCH // accumulation // topology.num_data_ranks
    model = make_model(((1, 1, 8, 8), (1, 1, 4, 4)), torch.float32)
    if size > 1:
        model.sequence_group = DistributedSequenceGroup(topology)
    model.offload_activations = recompute == "offloaded"
    model.checkpoint_blocks = "none" if recompute == "none" else "all"
    if freeze:
        model.blocks.requires_grad_(False)
    calls = []
    for block in model.blocks:
        block.register_forward_pre_hook(lambda *_: calls.append(1))
    settings = TrainSection(
        steps=STEPS,
        micro_batch=micro,
        accumulation=accumulation,
        clip_norm=clip,
        learning_rate=1e-3,
        weight_decay=0.1,
        compile=is_compiled,
    )
    # Of a small model, ZeRO 3 would part no weight.
    zero = {"stage": stage, "stage3_param_persistence_threshold": 0}
    if offload:
        zero["offload_optimizer"] = {"device": "cpu"}
    if offload and stage == 3:
        zero["offload_param"] = {"device": "cpu"}
    engine = build_engine(model.train(), settings, {"zero_optimization": zero})
    history = []
    for step in range(STEPS):
        loss_of_step = 0.0
        for chunk in range(accumulation):
            share = samples_of(step, accumulation, micro, chunk, topology.data_rank, topology.num_data_ranks)
            loss, _ = training_loss(engine(share), engine.module.sequence_group, SCALES)
            engine.backward(loss * size)
            norm = take_step(engine)
            mean = loss.detach().clone()
            torch.distributed.all_reduce(mean)
            loss_of_step += mean.item() / world_size() / accumulation
        history += [loss_of_step, norm.item()]
    assert len(calls) == STEPS * accumulation * len(model.blocks) * (1 + (recompute != "none")), len(calls)
    flat = torch.cat([torch.empty(0), *(value.flatten().double() for value in whole_parameters(engine).values())])
    engine.destroy()
    return history, flat


def is_chosen(stage, size, accumulation, clip, offload, recompute, freeze):
    """Whether a case is in the half in which every two of these choices meet."""
    others = (accumulation > 1, clip > 0, offload, recompute != "none", freeze)
    return (stage + size + sum(others)) % 2 == 0


def main(stages, accumulations, clips, offloads, recomputes, compiled, is_half_enough):
    start_processes(find_environment(), timeout=120, threads=1)
    sizes = [size for size in (1, 2) if world_size() % size == 0 and world_size() // size <= 2]
    cases = itertools.product(stages, sizes, accumulations, clips, offloads, recomputes, (False, True), compiled)
    for stage, size, accumulation, clip, offload, recompute, freeze, is_compiled in cases:
        if offload and stage < 2:
            continue
        if is_half_enough and not is_chosen(stage, size, accumulation, clip, offload, recompute, freeze):
            continue
        history, weights = train(stage, size, accumulation, clip, offload, recompute, freeze, is_compiled)
        if rank() == 0:
            name = f"stage {stage}, P {size}, accumulation {accumulation}, clip {clip}"
            name += f", offload {offload}, recompute {recompute}, frozen {freeze}, compiled {is_compiled}"
            sample = weights[:: max(1, len(weights) // 500)].tolist()
            sys.stdout.write(f"case {json.dumps([name, [clip, freeze], history, sample])}\n")
            sys.stdout.flush()
    stop_processes()


if __name__ == "__main__":
    main(*json.loads(sys.argv[1]))
