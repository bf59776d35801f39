"""Run by a launcher: training steps through DeepSpeed on a device; as JSON, which calls blocked and the peak of memory.

On a GPU a call that makes the host wait in forward, loss or backward is an error of CUDA's own (`set_sync_debug_mode`).
"""

import json
import sys
import warnings
from contextlib import contextmanager

import torch

from matey.benchmark.machine import memory
from matey.benchmark.speed_cases import Case
from matey.config import TrainSection
from matey.model.prepare import prepare
from matey.nested import packed
from matey.parallel.engine import build_engine, take_step
from matey.parallel.environment import find_environment, start_processes, stop_processes
from matey.train.ahead import on_device
from matey.train.loss import LossScale, training_loss

STEPS = 4


@contextmanager
def heard(mode, device):
    """Have CUDA say where a call blocks, or fail there."""
    if device == "cuda":
        torch.cuda.set_sync_debug_mode(mode)
    yield
    if device == "cuda":
        torch.cuda.set_sync_debug_mode("default")


def main(settings, deepspeed_config):
    environment = find_environment()
    start_processes(environment, timeout=120, threads=1)
    device = environment.device.type
    case = Case.from_json(settings)
    batch = case.make_batch().to("cpu")
    model = case.make_model()
    memory(device)  # from here on the peak counts
    engine = build_engine(model.train(), TrainSection(steps=STEPS, micro_batch=case.batch), deepspeed_config)
    stream = on_device(
        (packed(prepare([batch], model.config, model.sequence_group.ranks)) for _ in range(STEPS)), engine.device
    )
    blocked: list[str] = []
    for step in range(STEPS):
        ready = next(stream)
        is_last = step == STEPS - 1
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            with heard("error" if is_last else "default", device):
                loss, _ = training_loss(engine(ready), engine.module.sequence_group, {batch.system: LossScale()})
                engine.backward(loss)
            with heard("warn" if is_last else "default", device):
                take_step(engine)
        del ready  # before the next one comes
        blocked = [str(each.message) for each in said if "synchronizing CUDA" in str(each.message)]
    found = {"device": device, "loss": loss.item(), "blocked": len(blocked), "peak": memory(device, peak=True)}
    sys.stdout.write(f"found {json.dumps(found)}\n")
    sys.stdout.flush()
    stop_processes()


if __name__ == "__main__":
    main(*json.loads(sys.argv[1]))
