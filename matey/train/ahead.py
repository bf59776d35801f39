"""Micro-batches that are ready when a step asks for them: read, prepared and on the device.

    loader's workers, or a thread:  read --> prepare --> pack into one buffer --> pinned memory --> copy in a stream of its own
    step:                           --- the one before ---                                           wait in the device's queue

Ranks that read a part of the fields each prepare a micro-batch together, which needs this process: workers only read for it.

While one is in use the next is made, so there are two of them on the device. Where the device is the host itself there is
nothing to copy, and without workers no core to spare: micro-batches are then made as they are asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar, cast

import torch

from matey.config import TrainSection
from matey.fields import FieldBatch
from matey.model.configuration import MateyConfig
from matey.model.prepare import Prepared, prepare
from matey.model.sequence_group import Exchange, RankGroup
from matey.model.shared_fields import prepare_parts
from matey.nested import Packed, packed
from matey.samples import BatchPart
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
            yield cast(MicroBatch | Packed, item)


def on_any_of(ranks: RankGroup, exchange: Exchange, flag: bool) -> bool:
    """Return whether a flag is set on any of the ranks that share the samples, all of which call."""
    return bool(exchange.gather(torch.tensor([int(flag)]), [1] * ranks.size).any())


def on_device(stream: Iterator[MicroBatch | Packed], device: torch.device) -> Generator[MicroBatch, None, None]:
    """Yield micro-batches with their tensors on a device, the next one on its way; to a GPU each goes in one buffer."""
    if device.type == "cpu":
        yield from (item.unpacked() if isinstance(item, Packed) else item for item in stream)
        return
    copies = torch.cuda.Stream(device)
    # A new thread's GPU is the first one: it would take memory there for a context, for every rank of a node.
    for item, copied in beside(_copied(stream, device, copies), begin=partial(torch.cuda.set_device, device)):
        torch.cuda.current_stream(device).wait_event(copied)
        # Its memory belongs to the stream of the copies, which must not use it again while the step does.
        item.buffer.record_stream(torch.cuda.current_stream(device))
        yield item.unpacked()


def beside(items: Iterator[Item], begin: Callable[[], None] | None = None) -> Generator[Item, None, None]:
    """Yield items, each of which is taken in a thread while the one before is in use; an error comes up in its turn.

    Args:
        items: the items.
        begin: function that the thread calls before it takes the first one.
    """
    with ThreadPoolExecutor(1, "ahead", initializer=begin) as thread:
        coming = thread.submit(next, items, _END)
        while (item := coming.result()) is not _END:
            coming = thread.submit(next, items, _END)
            yield item  # type: ignore[misc]  # it is not _END


def _copied(
    stream: Iterator[MicroBatch | Packed], device: torch.device, copies: torch.cuda.Stream
) -> Iterator[tuple[Packed, torch.cuda.Event]]:
    for ready in stream:
        item = ready if isinstance(ready, Packed) else packed(ready)
        with torch.cuda.stream(copies):
            moved = replace(item, buffer=item.buffer.pin_memory().to(device, non_blocking=True))
        yield moved, copies.record_event()
