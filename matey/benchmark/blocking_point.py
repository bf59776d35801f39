"""Blocking calls of a training step on some ranks: ``torchrun -m matey.benchmark.blocking_point JSON``.

Rank 0 prints a line of JSON for each case, with the largest counts of any rank. The ranks form one sequence group.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, cast

import torch

from matey.benchmark.blocking import BlockingCalls
from matey.benchmark.sequence_parts import in_a_file
from matey.benchmark.speed import blocks_noted
from matey.benchmark.speed_cases import Case
from matey.config import TrainSection
from matey.config.choices import LOSSES
from matey.data.reading import read_parts
from matey.data.windows import Window
from matey.fields import FieldBatch
from matey.model.boxes import share_of
from matey.model.matey import MateyModel
from matey.nested import Packed, tensors_in
from matey.parallel import collectives
from matey.parallel.engine import build_engine
from matey.parallel.environment import find_environment, start_processes, stop_processes
from matey.parallel.meter import Meter
from matey.parallel.package import Engine
from matey.parallel.sequence import share_samples
from matey.train.ahead import AsRead, MakeReady, MicroBatch, on_device, together
from matey.train.average import MovingAverage
from matey.train.loop import take_step_of
from matey.train.loss import LossScale
from matey.train.step import TakenStep

WARM_UP = 2
"""Steps before the counted one; the first copies constants to the device and makes the optimizer's state."""

PARTS = ("forward", "backward")


class CountingMeter(Meter):
    """A meter that passes its marks to the counter of blocking calls."""

    def __init__(self, device: torch.device, calls: BlockingCalls) -> None:
        super().__init__(device)
        self._calls = calls

    def mark(self, part: str) -> None:
        """Assign the work since the last mark to a ``part``."""
        super().mark(part)
        self._calls.mark(part)


def main(settings: dict[str, Any]) -> None:
    """Count on all ranks and print the results on rank 0."""
    start_processes(find_environment(), timeout=600, threads=1)
    cases = [(loss, Case.from_json(each)) for loss, of_loss in settings["cases"].items() for each in of_loss]
    for loss, case in cases:
        own = count_step(case, settings["stage"], loss, is_prepared=settings["prepared"])
        everyone = collectives.from_all_ranks(own)
        most = max(everyone, key=lambda row: (row["forward"] + row["backward"], row["step"]))
        if collectives.rank() == 0:
            about = {"scheme": case.scheme, "tokens": case.tokens, "loss": loss, "ranks": collectives.world_size()}
            sys.stdout.write(f"point {json.dumps(about | most)}\n")
    stop_processes()


def count_step(case: Case, stage: int, loss: str = "nrmse", *, is_prepared: bool = True) -> dict[str, Any]:
    """Return the blocking calls of a whole logged step, and those and all operations of forward and backward alone.

    Args:
        case: the model and its micro-batch.
        stage: the ZeRO stage.
        loss: name of the loss.
        is_prepared: whether the micro-batch is prepared before the step (with several ranks, from the part of a file that each
            has read) or inside it.
    """
    model = case.make_model().train()
    if collectives.world_size() > 1:
        share_samples(model)
    group = model.sequence_group
    settings = TrainSection(steps=WARM_UP + 1, micro_batch=case.batch, loss=loss)
    engine = build_engine(model, settings, {"zero_optimization": {"stage": stage}})
    calls = BlockingCalls([])
    meter, average = CountingMeter(engine.device, calls), MovingAverage(engine, 0)
    batch = replace(case.make_batch(), draw=torch.arange(case.batch))
    read = _as_read(case, model, batch, settings) if is_prepared else None

    def make_ready() -> MicroBatch:
        if read is None:
            return AsRead([batch])
        stream = together(iter([read]), model.config, group.ranks, group.exchange, LOSSES[loss])
        return next(on_device(stream, engine.device))

    def take(ready: MicroBatch, step: int) -> TakenStep:
        return take_step_of(engine, iter([ready]), {"benchmark": LossScale()}, settings, average, step, meter)

    def note(name: str) -> None:
        calls.in_blocks = name.startswith("enter")

    for step in range(1, WARM_UP + 1):
        before = take(make_ready(), step)
    ready = make_ready()
    calls.hold([*_held_by(engine), *tensors_in(ready)])
    with calls, blocks_noted(model, note):
        take(ready, settings.steps)
        # The loop reads the numbers of the previous step while the device computes.
        before.totals.read(), before.grad_norm.read()
        assert before.reading is not None, "every step is logged"
        before.reading.numbers()
        calls.mark("numbers")
    engine.destroy()
    by_part = {part: calls.number(part) for part in PARTS}
    where = {part: dict(counts.most_common()) for part, counts in calls.where.items() if counts}
    operations = sum((calls.operations[part] for part in PARTS), Counter())
    return {**by_part, "step": calls.number(*calls.where), "operations": dict(operations), "where": where}


def _as_read(case: Case, model: MateyModel, batch: FieldBatch, settings: TrainSection) -> Packed:
    """Return a micro-batch as a worker sends it: prepared or, with several ranks, the part that this rank has read."""
    ranks = model.sequence_group.ranks
    make_ready, share = MakeReady(model.config, ranks, settings, is_packed=True), share_of(model.config, ranks)
    if share is None:
        return cast(Packed, make_ready(0, [batch]))
    with in_a_file(case) as (_, data):
        windows = [Window(0, sample, 0, 1) for sample in range(case.batch)]
        parts = read_parts([data], windows, case.frames, share)
    parts = [replace(part, samples=replace(part.samples, draw=batch.draw)) for part in parts]
    return cast(Packed, make_ready(0, parts))


def _held_by(engine: Engine) -> Iterator[torch.Tensor]:
    """Yield the tensors that a GPU holds between steps: weights, and the optimizer's copies and states."""
    yield from engine.module.parameters()
    yield from engine.module.buffers()
    inner = getattr(engine.optimizer, "optimizer", engine.optimizer)
    for group in inner.param_groups:
        yield from group["params"]
    for state in inner.state.values():
        # Adam's step count stays on the host.
        yield from (value for value in state.values() if isinstance(value, torch.Tensor) and value.ndim)
    for value in vars(engine.optimizer).values():  # DeepSpeed's buckets and flat copies
        yield from tensors_in(value)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(json.loads(sys.argv[1]))
