"""Run by a launcher: training steps through DeepSpeed on a device; as JSON, which calls blocked, the peak of memory, a profile.

On a GPU a call that makes the host wait in forward, loss or backward is an error of CUDA's own (`set_sync_debug_mode`).
"""

import json
import os
import statistics
import sys
import warnings
from contextlib import contextmanager

import torch

from matey.benchmark.step import Case, memory, now
from matey.config import TrainSection
from matey.model.nested import packed
from matey.model.prepare import prepare
from matey.parallel.engine import build_engine, take_step
from matey.parallel.environment import find_environment, start_processes, stop_processes
from matey.train.ahead import on_device
from matey.train.loss import LossScale, training_loss

WARM_UP, TIMED = 3, 5


@contextmanager
def heard(mode, device):
    """Have CUDA say where a call blocks, or fail there."""
    if device == "cuda":
        torch.cuda.set_sync_debug_mode(mode)
    yield
    if device == "cuda":
        torch.cuda.set_sync_debug_mode("default")


def spent(profiler, device):
    """Return how many kernels a device was given, how long it computed, and how long it had nothing to do in between.

    On a CPU, operations of PyTorch stand for kernels.
    """
    kinds = ("kernel", "gpu_memcpy", "gpu_memset") if device == "cuda" else ("cpu_op",)
    events = [each for each in profiler.profiler.kineto_results.events() if each.activity_type() in kinds]
    spans = sorted((each.start_ns(), each.end_ns()) for each in events)
    gaps, (first, end) = [], spans[0]
    for start, stop in spans:  # of several streams, or one within another
        gaps += [start - end] if start > end else []
        end = max(end, stop)
    idle = sum(gaps)
    names = ("kernels", "busy", "idle", "longest_gap")
    return dict(
        zip(names, (len(spans), (end - first - idle) / 1e9, idle / 1e9, max(gaps, default=0) / 1e9), strict=True)
    )


def main(settings, deepspeed_config):
    environment = find_environment()
    start_processes(environment, timeout=120, threads=1)
    device = environment.device.type
    case = Case.from_json(settings)
    batch = case.make_batch().to("cpu")
    model = case.make_model()
    memory(device)  # from here on the peak counts
    engine = build_engine(model.train(), TrainSection(steps=9, micro_batch=case.batch), deepspeed_config)
    ranks = model.sequence_group.ranks
    stream = on_device((packed(prepare([batch], model.config, ranks)) for _ in range(99)), engine.device)

    def step(while_it_computes="default", in_its_end="default"):
        ready = next(stream)
        with heard(while_it_computes, device):
            loss, _ = training_loss(engine(ready), engine.module.sequence_group, {batch.system: LossScale()})
            engine.backward(loss)
        with heard(in_its_end, device):
            take_step(engine)
        return loss.detach()  # the micro-batch is released before the next one comes

    for _ in range(WARM_UP):
        step()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        loss = step("error", "warn")
    blocked = [str(each.message) for each in said if "synchronizing CUDA" in str(each.message)]
    found = {"device": device, "loss": loss.item(), "blocked": len(blocked), "peak": memory(device, peak=True)}
    times = [now(device)]
    for _ in range(TIMED):
        step()
        times.append(now(device))
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # otherwise the profiler says on standard error that it starts
    with torch.profiler.profile() as profiler:
        step()
        now(device)
    found |= spent(profiler, device) | {
        "seconds": statistics.median(b - a for a, b in zip(times, times[1:], strict=False))
    }
    sys.stdout.write(f"found {json.dumps(found)}\n")
    sys.stdout.flush()
    stop_processes()


if __name__ == "__main__":
    main(*json.loads(sys.argv[1]))
