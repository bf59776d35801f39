"""Micro-batches that are ready when a step asks for them: read, prepared and on the device.

    loader's workers, or a thread:  read --> prepare --> pack into one buffer of pinned memory --> copy in a stream of its own
    step:                           --- the one before ---                                         wait in the device's queue

Ranks that each read a part of the fields prepare a micro-batch together, in the training process; workers only read for it.

While one micro-batch is in use, the next is prepared. If it is small compared with the device's memory, it is copied there at
once, so that the device holds two. A large one waits in main memory until the step has released the one before
(`is_copied_ahead`), and no second copy of it is made there. On a CPU there is nothing to copy and, without
workers, no core to spare: micro-batches are then made when they are asked for.

In a share of the steps (``train.unroll``) the model first predicts a few frames, one after the other and without gradients, and
is then trained to reach the target from those, so that rollouts stay accurate despite errors of earlier steps (pushforward,
Brandstetter et al. 2022, arXiv:2202.03376). Targets of such steps lie as many frames further on, see `matey.data.windows`; near
the end of a trajectory fewer frames are rolled out. The rest of the lead time is predicted at once.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeGuard, TypeVar, cast

import torch
from torch import Tensor

from matey.config import RunConfig, TrainSection
from matey.config.schema import LOSSES
from matey.data.stream import micro_batches
from matey.data.windows import Mixture
from matey.fields import BatchPart, FieldBatch
from matey.model.blocks import uniform_hash
from matey.model.boxes import share_of
from matey.model.configuration import MateyConfig
from matey.model.forecast import hold, next_frames
from matey.model.matey import MateyModel
from matey.model.nested import Packed, num_bytes_of, packed
from matey.model.prepare import Prepared, prepare, prepare_parts
from matey.model.sequence_group import Exchange, RankGroup
from matey.parallel.collectives import Engine
from matey.parallel.exchange import HostExchange, Topology
from matey.train.loss import NRMSE, Loss, halo_of


@dataclass(frozen=True)
class AsRead:
    """A micro-batch as it was read, whose histories the model still has to roll out.

    Attributes:
        batches: the fields, or this rank's part of them.
    """

    batches: list[FieldBatch] | list[BatchPart]


MicroBatch = Prepared | AsRead
"""A micro-batch as a step takes it."""

Unfinished = MicroBatch | list[BatchPart]
"""A micro-batch as a step takes it, or parts that the ranks of a group still have to prepare together."""

Item = TypeVar("Item")
_END = object()


def stream_of(
    run: RunConfig, mixture: Mixture, model: MateyModel, device: torch.device, topology: Topology, done: int
) -> Iterator[MicroBatch]:
    """Return this rank's micro-batches on a device, from the one after ``done`` steps on; all ranks must call."""
    settings, config, ranks = run.train, model.config, model.sequence_group.ranks
    # Ranks that prepare ahead of a step talk in a group of its own, since they may validate at the same time.
    exchange, share = HostExchange(topology.sequence_groups()), share_of(config, ranks)
    skips_in_parts = share is not None and run.data.bad_values == "skip"
    workers = run.data.workers_with(gpu=device.type == "cuda")
    read = micro_batches(
        mixture,
        done,
        settings.steps - done,
        settings.micro_batch,
        settings.accumulation,
        topology.data_rank,
        topology.num_data_ranks,
        workers,
        same_system=run.data.same_system,
        bad_values=run.data.bad_values,
        further=partial(num_rolled, settings=settings),
        share=share,
        finish=MakeReady(config, ranks, settings, is_packed=workers > 0),
        on_any=partial(on_any_of, ranks, exchange) if skips_in_parts else None,
    )
    return on_device(together(read, config, ranks, exchange, LOSSES[settings.loss]), device)


@dataclass(frozen=True)
class MakeReady:
    """Makes micro-batches ready for one rank; the object is sent to the loader's workers.

    Attributes:
        config: the configuration of the model.
        ranks: the group of ranks that share the samples.
        settings: the section ``train`` of the run's settings.
        is_packed: whether the tensors are packed into one buffer, to be sent to another process.
    """

    config: MateyConfig
    ranks: RankGroup
    settings: TrainSection
    is_packed: bool

    def __call__(self, micro_step: int, batches: list[FieldBatch] | list[BatchPart]) -> Unfinished | Packed:
        """Make a micro-batch ready; ``micro_step`` is its number from the start of the run.

        Histories that the model first rolls out cannot be prepared yet: their refinement depends on its predictions.
        """
        ready: Unfinished
        if num_rolled(micro_step, self.settings):
            ready = AsRead(batches)
        elif is_part(batches):
            ready = batches
        else:
            ready = prepare(cast(list[FieldBatch], batches), self.config, self.ranks)
            ready = for_loss(ready, LOSSES[self.settings.loss], self.ranks)
        return packed(ready) if self.is_packed else ready


def for_loss(ready: Prepared, loss: Loss, ranks: RankGroup) -> Prepared:
    """Return a micro-batch with all that a loss has to know, see `Loss.halo`."""
    if not loss.halo:
        return ready
    return ready.with_halos([halo_of(loss.halo, about.window[1:]) for about in ready.samples], ranks)


def together(
    stream: Iterator[Unfinished | Packed],
    config: MateyConfig,
    ranks: RankGroup,
    exchange: Exchange,
    loss: Loss = NRMSE,
) -> Iterator[MicroBatch | Packed]:
    """Prepare the micro-batches that ranks have read in parts, for a loss; all ranks of the group must call."""
    for item in stream:
        ready: Unfinished = item.unpacked() if isinstance(item, Packed) else item
        if is_part(ready):
            del item  # the memory of the parts is free once they are prepared
            yield for_loss(prepare_parts(ready, config, ranks, exchange), loss, ranks)
        else:
            del ready
            # No name is left here, so that the caller decides how long the item stays in memory.
            yield cast(MicroBatch | Packed, (item, item := None)[0])  # type: ignore[assignment]


def on_any_of(ranks: RankGroup, exchange: Exchange, flag: bool) -> bool:
    """Return whether a flag is set on any of the ranks that share the samples; all of them must call."""
    return bool(exchange.gather(torch.tensor([int(flag)]), [1] * ranks.size).any())


def on_device(stream: Iterator[MicroBatch | Packed], device: torch.device) -> Iterator[MicroBatch]:
    """Yield micro-batches with their tensors on a device, while the next one is copied; a GPU gets each in one buffer.

    Parts of histories that are rolled out stay in main memory, where ranks prepare them again for each frame.

    Args:
        stream: the micro-batches.
        device: the device. The caller releases a micro-batch before it takes the next one, so that memory can be reused.
    """
    if device.type == "cpu":
        return map(_unpacked, stream)
    way = _WayTo(device)
    return beside(way.sent(stream), begin=way.begin, finish=way.arrived)


def beside(
    items: Iterator[Item], begin: Callable[[], None] | None = None, finish: Callable[[Item], Any] | None = None
) -> Generator[Any, None, None]:
    """Yield items, while a thread already takes the next one; an error is raised when its item is due.

    Args:
        items: the items.
        begin: function that the thread calls before it takes the first one.
        finish: function that returns the item to yield in place of another; called when that is asked for, before the thread
            takes the next one.
    """
    with ThreadPoolExecutor(1, "ahead", initializer=begin) as thread:
        coming = thread.submit(next, items, _END)
        while (item := coming.result()) is not _END:
            ready = item if finish is None else finish(cast(Item, item))
            del item, coming
            coming = thread.submit(next, items, _END)
            yield (ready, ready := None)[0]  # no name is left here


def _unpacked(item: MicroBatch | Packed) -> MicroBatch:
    return cast(MicroBatch, item.unpacked()) if isinstance(item, Packed) else item


@dataclass(frozen=True)
class _OnItsWay:
    """A micro-batch whose tensors are being copied to a GPU, and the event after which they are there."""

    item: Packed
    copied: torch.cuda.Event


AHEAD_SHARE = 1 / 8
"""Share of a GPU's memory that a micro-batch may take to be copied there while the one before is in use."""


def is_copied_ahead(num_bytes: float, memory: float) -> bool:
    """Return whether a micro-batch is copied to a GPU with ``memory`` bytes before the step has released the one before."""
    return num_bytes <= AHEAD_SHARE * memory


class _WayTo:
    """Sends micro-batches to a device; copies ahead of the step use a stream of their own."""

    def __init__(self, device: torch.device) -> None:
        self._device, self._memory = device, 0
        self._released: torch.cuda.Event | None = None
        if device.type == "cuda":
            self._copies = torch.cuda.Stream(device)
            self._memory = torch.cuda.get_device_properties(device).total_memory

    def begin(self) -> None:
        """Set the thread's GPU: by default it is the node's first, where a context for every rank would take memory."""
        if self._memory:
            torch.cuda.set_device(self._device)

    def sent(self, stream: Iterator[MicroBatch | Packed]) -> Iterator[MicroBatch | _OnItsWay]:
        """Send micro-batches, in the thread, and yield them."""
        for item in stream:
            ready = self._send(_unpacked(item))
            del item
            yield (ready, ready := None)[0]  # type: ignore[assignment]  # no name is left here

    def _send(self, ready: MicroBatch) -> MicroBatch | _OnItsWay:
        if _stays(ready) or not is_copied_ahead(num_bytes_of(ready), self._memory):
            return ready
        pinned = packed(ready, pin=True)
        if self._released is not None:
            self._released.synchronize()  # a device far behind could otherwise hold a third one
        with torch.cuda.stream(self._copies):
            moved = replace(pinned, buffer=pinned.buffer.to(self._device, non_blocking=True))
        return _OnItsWay(moved, self._copies.record_event())

    def arrived(self, item: MicroBatch | _OnItsWay) -> MicroBatch:
        """Return a micro-batch on the device; called when the step has released the one before and asks for this one."""
        if not isinstance(item, _OnItsWay):
            return item if _stays(item) else cast(MicroBatch, packed(item, self._device).unpacked())
        current = torch.cuda.current_stream(self._device)
        self._released = current.record_event()
        current.wait_event(item.copied)
        # Its memory belongs to the stream of the copies, which must not reuse it while the step needs it.
        item.item.buffer.record_stream(current)
        return cast(MicroBatch, item.item.unpacked())


def _stays(ready: MicroBatch) -> bool:
    return isinstance(ready, AsRead) and is_part(ready.batches)


def num_rolled(micro_step: int, settings: TrainSection) -> int:
    """Return the number of frames to roll out before a micro-step, counted from the run's start; all ranks have the same.

    All micro-steps of a step have the same number, so that a global batch has the same samples however it is cut.
    """
    if not settings.unroll:
        return 0
    first = (settings.seed % 2**22 << 40) + 2 * (micro_step // settings.accumulation)
    share, length = uniform_hash(torch.tensor([first, first + 1])).tolist()
    return 1 + int(length * settings.unroll) if share < settings.unroll_share else 0


def is_part(item: Any) -> TypeGuard[list[BatchPart]]:  # noqa: ANN401
    """Return whether an item is a rank's part of the fields of a micro-batch."""
    return isinstance(item, list) and isinstance(item[0], BatchPart)


def rolled_out(
    engine: Engine, batches: list[FieldBatch] | list[BatchPart], num_steps: int
) -> Prepared | list[FieldBatch]:
    """Roll a micro-batch out by ``num_steps`` frames, and return it in the form that the engine takes; all ranks must call.

    A list of parts is emptied, so that what was read does not lie in memory beside what follows from it.
    """
    if not is_part(batches):
        return push_forward(engine, batches.copy(), num_steps)
    group, config = engine.module.sequence_group, engine.module.config
    parts: list[BatchPart] = batches.copy()
    batches.clear()
    hold(parts, config, group.ranks)
    parts = push_forward(engine, parts, num_steps)
    return prepare_parts(parts, config, group.ranks, group.exchange).to(engine.device)


@torch.no_grad()
def push_forward(engine: Engine, batches: list[Any], num_steps: int) -> list[Any]:
    """Replace the newest frames of the histories by predictions. All ranks must call with the same number of steps.

    Args:
        engine: the engine of the model.
        batches: the batches of a micro-batch; or this rank's part of them, see `matey.model.forecast.hold`. Later
            ones take their place in the list while it is rolled out.
        num_steps: number of frames to predict; at most ``L - 1`` for a sample with lead time ``L``.

    Returns:
        The batches with later histories and shorter lead times; the targets are the same.
    """
    steps = [(batch.samples.lead_time.long() - 1).clamp(max=num_steps) for batch in batches]
    engine.eval()
    for step in range(num_steps):
        for number, frames in enumerate(_next_frames(engine, batches)):
            batches[number] = _later(batches[number], frames, steps[number] > step)
    engine.train()
    return [_at(batch, batch.samples.lead_time - of_batch) for batch, of_batch in zip(batches, steps, strict=True)]


def _at(batch: FieldBatch | BatchPart, lead_time: Tensor) -> FieldBatch | BatchPart:
    """Return a batch with other lead times ``(b,)``."""
    if isinstance(batch, FieldBatch):
        return batch.with_tensors(lead_time=lead_time)
    return replace(batch, samples=replace(batch.samples, lead_time=lead_time))


def _next_frames(engine: Engine, batches: list[Any]) -> list[Any]:
    """Predict the frame after the histories: ``(b, f, z, y, x)`` of each batch, or in the box of each piece of a part."""
    if not is_part(batches):
        known = [_at(batch, torch.ones_like(batch.samples.lead_time)) for batch in batches]
        return [forecast.field() for forecast in engine(known)]
    group, config = engine.module.sequence_group, engine.module.config
    parts = [part.without_targets().at_lead(1) for part in batches]
    prepared = prepare_parts([*parts], config, group.ranks, group.exchange).to(engine.device)
    forecasts = engine(prepared)
    del prepared  # before frames come back, which take memory as well
    return next_frames(forecasts, parts, config, group.ranks, group.exchange)


def _later(batch: FieldBatch | BatchPart, frames: Any, moves: Tensor) -> FieldBatch | BatchPart:  # noqa: ANN401
    """Append the next frames to the histories of the samples that ``moves`` ``(b,)`` names; given fields move on with them.

    Of fields given in time the last frame is repeated, but nothing uses the copies.
    """
    if isinstance(batch, FieldBatch):
        history, given = batch.history, batch.given
        with_frame = _moved(history, frames.to(history.dtype), moves)
        moved = given if given is None or given.shape[1] == 1 else _moved(given, given[:, -1], moves)
        return batch.with_tensors(history=with_frame, given=moved)
    pieces = list(batch.pieces)
    for place, (piece, frame) in enumerate(zip(batch.pieces, frames, strict=True)):
        if moves[piece.sample]:
            given = piece.given
            if given is not None and len(given) > 1:
                given = torch.cat([given[1:], given[-1:]])
            pieces[place] = replace(piece, history=torch.cat([piece.history[1:], frame[None]]), given=given)
    return replace(batch, pieces=tuple(pieces))


def _moved(frames: Tensor, new: Tensor, moves: Tensor) -> Tensor:
    """Return frames ``(b, t, f, z, y, x)`` with a new one ``(b, f, z, y, x)`` at the end, of the samples that move."""
    later = torch.cat([frames[:, 1:], new[:, None]], dim=1)
    return later.where(moves.view(-1, 1, 1, 1, 1, 1), frames)
