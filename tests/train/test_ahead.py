"""Micro-batches that are ready when a step asks for them."""

import gc
import threading
import weakref

import torch
from torch.multiprocessing.reductions import StorageWeakRef

from matey.config import TrainSection
from matey.model.boxes import BoxShare
from matey.model.nested import packed, tensors_in
from matey.model.prepare import prepare
from matey.model.sequence_group import RankGroup
from matey.parallel.exchange import Topology
from matey.parallel.meter import Meter
from matey.parallel.sequence import SequenceRanks
from matey.train.ahead import MakeReady, beside, on_device, together
from matey.train.checkpoint import MovingAverage
from matey.train.loop import take_step_of
from matey.train.loss import LossScale
from tests.support.laws import law
from tests.support.models import VOCABULARY, make_batch, make_model
from tests.support.parts import Group, parts_of

DEVICE = torch.device("cpu")


def batches():
    return [make_batch(num_samples=2), make_batch("diffusion_reaction", VOCABULARY[1:], 1, 2, (1, 20, 16), seed=2)]


@torch.no_grad()
@law("token_set", ["mix", "mul"], quick=["mul"])
def test_a_prepared_and_packed_micro_batch_gives_the_forecasts_of_its_fields(token_set):
    model = make_model(set=token_set)
    make_ready = MakeReady(model.config, model.sequence_group.ranks, TrainSection(steps=1), is_packed=True)
    (ready,) = on_device(iter([make_ready(0, batches())]), DEVICE)
    for ours, theirs in zip(model(ready), model(batches()), strict=True):
        assert torch.equal(ours.field(), theirs.field()) and ours.num_tokens == theirs.num_tokens


def test_what_is_prepared_for_the_ranks_of_a_group_covers_every_token_and_cell_once():
    config = make_model().config
    alone = prepare(batches(), config, RankGroup())
    parts = [prepare(batches(), config, SequenceRanks(Topology(rank, 3, 3, 3))) for rank in range(3)]
    assert torch.equal(torch.cat([part.layout.centre for part in parts]), alone.layout.centre)
    of_ranks = [sum(held.base[:, 0].numel() for held in part.held) for part in (alone, *parts)]
    assert sum(of_ranks[1:]) == of_ranks[0]


def test_the_next_item_is_made_in_a_thread_while_one_is_in_use_and_no_more():
    begun = [threading.Event() for _ in range(4)]

    def items():
        for number, event in enumerate(begun):
            event.set()
            yield number, threading.current_thread()

    taken = beside(items())
    for number in range(4):
        item, thread = next(taken)
        assert item == number and thread is not threading.main_thread()
        if number + 1 < len(begun):
            assert begun[number + 1].wait(10)
        assert sum(event.is_set() for event in begun) <= number + 2
    assert list(taken) == []


def test_what_was_read_is_let_go_of_once_it_is_prepared():
    config, whole, held = make_model().config, batches(), [None, None]

    def prepared(rank, exchange):
        parts = parts_of(whole, BoxShare(config, rank, 2))
        held[rank] = weakref.ref(parts[0])
        stream = together(iter([parts]), config, SequenceRanks(Topology(rank, 2, 2, 3)), exchange)
        del parts
        ready = next(stream)
        assert held[rank]() is None and len(ready.held) == 2

    Group(2).run(prepared)


def prepared_one_by_one(config, held):
    for _ in range(3):
        assert all(ready() is None for ready in held)  # nobody holds what came before
        ready = prepare(batches(), config)
        held.append(weakref.ref(ready))
        yield (ready, ready := None)[0]


@law("device", ["cpu", "meta"], quick=["cpu"])
def test_nobody_holds_a_micro_batch_in_main_memory_while_the_next_is_made(device):
    config, held = make_model().config, []
    made = together(prepared_one_by_one(config, held), config, RankGroup(), None)
    num = 0
    for ready in on_device(made, torch.device(device)):
        assert {tensor.device.type for tensor in tensors_in(ready)} == {device}
        num += 1
        del ready
    gc.collect()
    assert num == 3 and all(ready() is None for ready in held)


class Alone:
    """What a step needs of an engine, of one process without DeepSpeed."""

    def __init__(self, model, accumulation):
        self.module, self.device, self.num_left = model, model.device, accumulation
        self.optimizer = torch.optim.SGD([{"params": [*model.parameters()], "factor": 1.0, "name": "all"}])

    def __call__(self, batches):
        return self.module(batches)

    def backward(self, loss):
        loss.backward()

    def is_gradient_accumulation_boundary(self):
        return self.num_left == 1

    def step(self):
        self.num_left -= 1

    def zero_optimization_stage(self):
        return 0


def test_a_step_lets_go_of_its_micro_batches_before_the_next_one_comes():
    model, batch = make_model().train(), make_batch()
    engine, held = Alone(model, accumulation=3), []

    def stream():
        for _ in range(3):
            assert all(storage.expired() for storage in held)
            item = packed(prepare([batch], model.config, RankGroup()))
            held.append(StorageWeakRef(item.buffer.untyped_storage()))
            yield (item.unpacked(), item := None)[0]

    settings = TrainSection(steps=1, accumulation=3)
    scales, average = {batch.system: LossScale()}, MovingAverage(engine, 0)
    take_step_of(engine, stream(), scales, settings, average, 1, Meter(engine.device))
    assert len(held) == 3
