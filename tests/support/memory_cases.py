"""Run by a launcher: what each rank holds of a model with its engine, and what a step adds, for a list of DeepSpeed settings.

Prints a line per case on rank 0: its number, the bytes held between steps, at the most in the backward pass and in the
optimizer's step, and the traffic of a step.
"""

import gc
import json
import sys

import torch

from matey.benchmark.step import Case, memory, return_freed_memory
from matey.config import TrainSection, parse_config
from matey.parallel.collectives import deepspeed, rank
from matey.parallel.engine import build_engine, take_step
from matey.parallel.environment import find_environment, start_processes, stop_processes
from matey.parallel.meter import take_traffic
from matey.train.loss import LossScale, training_loss

RUN = parse_config(
    {"data": {"sets": [{"path": "none"}]}, "train": {"steps": 1, "micro_batch": 1}, "output": {"dir": "none"}}, "test"
)
SAMPLE = {"grid": (16, 16), "patches": (16,), "frames": 1, "fields": 1, "batch": 1}  # one token: next to no activations


def measure(size, deepspeed_config):
    case = Case(size, **SAMPLE)
    batch = case.make_batch()
    before = memory("cpu")
    engine = build_engine(case.make_model(), TrainSection(steps=9, micro_batch=1), deepspeed_config)
    for _ in range(3):  # stage 3 gathers module by module until it knows their order
        take_traffic()
        loss, _ = training_loss(engine([batch]), engine.module.sequence_group, {batch.system: LossScale()})
        engine.backward(loss)
        backward = memory("cpu", peak=True) - before
        memory("cpu")
        take_step(engine)
        step = memory("cpu", peak=True) - before
        traffic = take_traffic()
        held = memory("cpu") - before
    deepspeed().comm.configure(enabled=False)
    engine.destroy()
    del engine, loss
    gc.collect()
    return {"held": held, "backward": backward, "step": step, "traffic": traffic}


def main(size, settings):
    start_processes(find_environment(), timeout=120, threads=1)
    return_freed_memory(at_once=True)
    # What libraries keep from their first use, also for matrices of a shape, is no part of a plan.
    measure("micro", settings[0])
    for dtype in (torch.float32, torch.bfloat16):
        case = Case(size, dtype=dtype, **SAMPLE)
        model, batch = case.make_model(), case.make_batch()
        training_loss(model([batch]), model.sequence_group, {batch.system: LossScale()})[0].backward()
    del model
    for number, deepspeed_config in enumerate(settings):
        point = measure(size, deepspeed_config)
        if rank() == 0:
            sys.stdout.write(f"case {json.dumps([number, point])}\n")
    stop_processes()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(*json.loads(sys.argv[1]))
