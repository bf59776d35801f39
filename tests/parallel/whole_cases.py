"""Started by test_engine.py on two ranks: puts models together whose weights count up.

A line ``whole`` per engine on rank 0: the name; the weights that are not what they should be; the bytes of the model in
float32, and by how many the tensors of rank 1 grew meanwhile, which is tried ten times as long as it is half of that. Then a
line ``accumulation`` with the norms and a line ``type`` with the type of messages for each of accumulation_cases.py.
"""

import json
import sys
from itertools import accumulate

import torch
import torch.distributed as dist

from matey.config import TrainSection
from matey.parallel.collectives import rank
from matey.parallel.engine import build_engine, whole_parameters
from matey.parallel.environment import find_environment, start_processes, stop_processes
from matey.parallel.master import masters, refresh_module
from tests.parallel import accumulation_cases
from tests.parallel.accumulation_cases import BF16
from tests.support.models import make_model

PARTED = {"stage": 3, "stage3_param_persistence_threshold": 0}  # small weights too
ENGINES = {
    "float32, stage 0": {"zero_optimization": {"stage": 0}},
    "float32, stage 2": {"zero_optimization": {"stage": 2}},
    "float32, stage 3": {"zero_optimization": PARTED},
    "bf16, stage 1": {"zero_optimization": {"stage": 1}, **BF16},
}


def peak_bytes(profile: torch.profiler.profile) -> int:
    """By how many bytes the tensors of this process grew at most while it was profiled."""
    events = sorted(profile.profiler.kineto_results.events(), key=lambda event: event.start_ns())
    return max(accumulate((event.nbytes() for event in events if event.name() == "[memory]"), initial=0))


def put_together(config: dict) -> list:
    model = make_model(dtype=torch.float32, width=60, num_blocks=12, trained=False).train()
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    engine = build_engine(model, TrainSection(steps=9), config)
    for master in masters(engine):
        for piece, values in master:
            values.copy_(torch.arange(piece.start, piece.start + piece.length) / 3)
    refresh_module(engine)
    num_bytes = 4 * sum(sizes.values())
    # The threads of a busy machine let go of their tensors late: a copy of the model would be there each time.
    for _ in range(10):
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
            weights = whole_parameters(engine)
        grown = torch.tensor(peak_bytes(profile))
        dist.broadcast(grown, 1)
        if grown < num_bytes / 2:
            break
    expected = {name: torch.arange(size) / 3 for name, size in sizes.items() if rank() == 0}
    wrong = [name for name, values in expected.items() if not torch.equal(weights[name].flatten(), values)]
    engine.destroy()
    return [wrong, num_bytes, int(grown)]


def say(kind: str, name: str, found: list | str) -> None:
    if rank() == 0:
        sys.stdout.write(f"{kind} {json.dumps([name, found])}\n")


def main() -> None:
    start_processes(find_environment(), timeout=60, threads=1)
    for name, config in ENGINES.items():
        say("whole", name, put_together(config))
    for name, config in accumulation_cases.ENGINES.items():
        norms, types = zip(*(accumulation_cases.norms(config, times) for times in (1, 3)), strict=True)
        say("accumulation", name, list(norms))
        say("type", name, types[0])
    stop_processes()


if __name__ == "__main__":
    main()
