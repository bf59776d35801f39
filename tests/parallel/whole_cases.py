"""Started by test_engine.py on two ranks, with engines of every stage.

A line ``whole`` per engine on rank 0: the name, and the weights that are not put together as they should be, of a model whose
weights count up. Then a line ``accumulation`` with the norms of two steps of one and of three equal micro-batches, and a line
``type`` with the type in which gradients add up over ranks.
"""

import json
import sys

import torch

from matey.config import TrainSection
from matey.parallel.collectives import rank
from matey.parallel.engine import build_engine, take_step, whole_parameters
from matey.parallel.environment import find_environment, start_processes, stop_processes
from matey.parallel.master import masters, refresh_module
from matey.train.loss import LossScale, training_loss
from tests.support.models import make_batch, make_model

BF16 = {"bf16": {"enabled": True}, "data_types": {"grad_accum_dtype": "fp32"}}
PARTED = {"stage": 3, "stage3_param_persistence_threshold": 0}  # small weights too
WHOLE = {
    "float32, stage 0": {"zero_optimization": {"stage": 0}},
    "float32, stage 2": {"zero_optimization": {"stage": 2}},
    "float32, stage 3": {"zero_optimization": PARTED},
    "bf16, stage 1": {"zero_optimization": {"stage": 1}, **BF16},
}
# Small buckets, so that there are several.
OVERLAPPED = {"overlap_comm": True, "reduce_bucket_size": 2000}
ACCUMULATED = {f"bf16, stage {stage}": {"zero_optimization": {"stage": stage}, **BF16} for stage in (1, 2, 3)}
ACCUMULATED |= {f"stage {s}, overlapped": {"zero_optimization": {"stage": s, **OVERLAPPED}} for s in (1, 2)}


def put_together(config: dict) -> list[str]:
    model = make_model(dtype=torch.float32, trained=False).train()
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    engine = build_engine(model, TrainSection(steps=9), config)
    for master in masters(engine):
        for piece, values in master:
            values.copy_(torch.arange(piece.start, piece.start + piece.length) / 3)
    refresh_module(engine)
    weights = whole_parameters(engine)
    assert rank() == 0 or weights == {}
    expected = {name: torch.arange(size) / 3 for name, size in sizes.items() if rank() == 0}
    engine.destroy()
    return [name for name, values in expected.items() if not torch.equal(weights[name].flatten(), values)]


def norms(config: dict, accumulation: int) -> tuple[list[float], str]:
    """The norms of two steps, and the type of messages; stages 2 and 3 keep it with the optimizer."""
    train = TrainSection(steps=9, micro_batch=1, accumulation=accumulation)
    engine = build_engine(make_model().float().train(), train, config)
    batch, found = make_batch(num_samples=1), []
    for _ in range(2 * accumulation):
        loss, _ = training_loss(engine([batch]), engine.module.sequence_group, {batch.system: LossScale()})
        engine.backward(loss)
        found.append(take_step(engine))
    of_messages = getattr(engine.optimizer, "communication_data_type", engine.communication_data_type)
    engine.destroy()
    return [norm.item() for norm in found if norm is not None], str(of_messages)


def say(kind: str, name: str, found: list | str) -> None:
    if rank() == 0:
        sys.stdout.write(f"{kind} {json.dumps([name, found])}\n")


def main() -> None:
    start_processes(find_environment(), timeout=60, threads=1)
    assert torch.tensor(1e-40) * 1 == 0, "numbers with which a CPU is slow"
    for name, config in WHOLE.items():
        say("whole", name, put_together(config))
    for name, config in ACCUMULATED.items():
        found, types = zip(*(norms(config, times) for times in (1, 3)), strict=True)
        say("accumulation", name, list(found))
        say("type", name, types[0])
    stop_processes()


if __name__ == "__main__":
    main()
