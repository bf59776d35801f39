"""Micro-batches that are ready when a step asks for them: read, prepared and on the device.

    loader's workers, or a thread:  read --> prepare --> pack into one buffer of pinned memory --> copy in a stream of its own
    step:                           --- the one before ---                                         wait in the device's queue

Ranks that read a part of the fields each prepare a micro-batch together, which needs this process: workers only read for it.

While one is in use the next is made, and copied where it is small beside the device's memory, so that there are two of them.
A large one waits in main memory until the step has let go of the one before (`matey.train.memory.is_copied_ahead`), and no
second copy of it is made there. Where the device is the host itself there is nothing to copy, and without workers no core to
spare: micro-batches are then made as they are asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, TypeVar, cast

import torch

from matey.config import TrainSection
from matey.fields import FieldBatch
from matey.model.configuration import MateyConfig
from matey.model.prepare import Prepared, prepare
from matey.model.sequence_group import Exchange, RankGroup
from matey.model.shared_fields import prepare_parts
from matey.nested import Packed, num_bytes_of, packed
from matey.samples import BatchPart
from matey.train.memory import is_copied_ahead
from matey.train.unroll import is_part, num_rolled


@dataclass(frozen=True)
class AsRead:
    """A micro-batch whose histories the model first rolls out, as it was read.

    Attributes:
        batches: the fields, or this rank's part of them.
    """

    batches: list[FieldBatch] | list[BatchPart]


MicroBatch = Prepared | AsRead
"""A micro-batch as a step takes it."""

Unfinished = MicroBatch | list[BatchPart]
"""A micro-batch as it is read: that, or parts that the ranks of a group have to prepare together."""

Item = TypeVar("Item")
_END = object()


@dataclass(frozen=True)
class MakeReady:
    """Makes micro-batches ready for one rank; loader workers are sent it.

    Attributes:
        config: the configuration of the model.
        ranks: the group of ranks that share the samples.
        settings: the section ``train`` of the run's settings.
        is_packed: whether the tensors are to lie in one buffer, to be sent to another process.
    """

    config: MateyConfig
    ranks: RankGroup
    settings: TrainSection
    is_packed: bool

    def __call__(self, micro_step: int, batches: list[FieldBatch] | list[BatchPart]) -> Unfinished | Packed:
        """Make a micro-batch ready, by its number counted from the start of the run.

        Histories that the model rolls out first cannot be prepared: what is refined follows from what it will predict.
        """
        ready: Unfinished
        if num_rolled(micro_step, self.settings):
            ready = AsRead(batches)
        elif is_part(batches):
            ready = batches
        else:
            ready = prepare(cast(list[FieldBatch], batches), self.config, self.ranks)
        return packed(ready) if self.is_packed else ready


def together(
    stream: Iterator[Unfinished | Packed], config: MateyConfig, ranks: RankGroup, exchange: Exchange
) -> Iterator[MicroBatch | Packed]:
    """Prepare those micro-batches of which each rank has read a part; all ranks of the group come here together."""
    for item in stream:
        ready: Unfinished = item.unpacked() if isinstance(item, Packed) else item
        if is_part(ready):
            del item  # what was read is let go of once it is prepared
            yield prepare_parts(ready, config, ranks, exchange)
        else:
            del ready
            # No name is left here: who takes it decides how long it lies in memory.
            yield cast(MicroBatch | Packed, (item, item := None)[0])  # type: ignore[assignment]


def on_any_of(ranks: RankGroup, exchange: Exchange, flag: bool) -> bool:
    """Return whether a flag is set on any of the ranks that share the samples, all of which call."""
    return bool(exchange.gather(torch.tensor([int(flag)]), [1] * ranks.size).any())


def on_device(stream: Iterator[MicroBatch | Packed], device: torch.device) -> Iterator[MicroBatch]:
    """Yield micro-batches with their tensors on a device, the next one on its way; to a GPU each goes in one buffer.

    Parts of histories that are rolled out stay in main memory, where ranks prepare them again and again.

    Args:
        stream: the micro-batches.
        device: the device. Who takes a micro-batch lets go of the one before, so that its memory can be used.
    """
    if device.type == "cpu":
        return map(_unpacked, stream)
    way = _WayTo(device)
    return beside(way.sent(stream), begin=way.begin, finish=way.arrived)


def beside(
    items: Iterator[Item], begin: Callable[[], None] | None = None, finish: Callable[[Item], Any] | None = None
) -> Generator[Any, None, None]:
    """Yield items, each of which is taken in a thread while the one before is in use; an error comes up in its turn.

    Args:
        items: the items.
        begin: function that the thread calls before it takes the first one.
        finish: function of an item that returns what is yielded in its place; called when the item is asked for, before the
            thread takes the next one.
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


class _WayTo:
    """The way of micro-batches to a device; what is sent ahead of the step goes in a stream of its own."""

    def __init__(self, device: torch.device) -> None:
        self._device, self._memory = device, 0
        self._released: torch.cuda.Event | None = None
        if device.type == "cuda":
            self._copies = torch.cuda.Stream(device)
            self._memory = torch.cuda.get_device_properties(device).total_memory

    def begin(self) -> None:
        """Set up the thread: its GPU would be the first one, and a context there takes memory for every rank of a node."""
        if self._memory:
            torch.cuda.set_device(self._device)

    def sent(self, stream: Iterator[MicroBatch | Packed]) -> Iterator[MicroBatch | _OnItsWay]:
        """Yield micro-batches as they leave, in the thread."""
        for item in stream:
            ready = self._send(_unpacked(item))
            del item
            yield (ready, ready := None)[0]  # type: ignore[assignment]  # no name is left here

    def _send(self, ready: MicroBatch) -> MicroBatch | _OnItsWay:
        if _stays(ready) or not is_copied_ahead(num_bytes_of(ready), self._memory):
            return ready
        pinned = packed(ready, pin=True)
        if self._released is not None:
            self._released.synchronize()  # else a third one could lie there, were the device far behind
        with torch.cuda.stream(self._copies):
            moved = replace(pinned, buffer=pinned.buffer.to(self._device, non_blocking=True))
        return _OnItsWay(moved, self._copies.record_event())

    def arrived(self, item: MicroBatch | _OnItsWay) -> MicroBatch:
        """Return a micro-batch on the device, when the step asks for it and has let go of the one before."""
        if not isinstance(item, _OnItsWay):
            return item if _stays(item) else cast(MicroBatch, packed(item, self._device).unpacked())
        current = torch.cuda.current_stream(self._device)
        self._released = current.record_event()
        current.wait_event(item.copied)
        # Its memory belongs to the stream of the copies, which must not use it again while the step does.
        item.item.buffer.record_stream(current)
        return cast(MicroBatch, item.item.unpacked())


def _stays(ready: MicroBatch) -> bool:
    return isinstance(ready, AsRead) and is_part(ready.batches)
