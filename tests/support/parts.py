"""Parts of fields that are whole here: what the ranks of a group would have read of them."""

import threading

import torch

from matey.fields import BatchPart, Piece
from matey.model.boxes import BoxShare
from tests.support.models import make_config


def share_in(patch, rank, size, network="paper"):
    """What a rank of a model with patches of this size reads: its boxes and, unless it is the paper's network, around them."""
    return BoxShare(make_config((patch,), network=network), rank, size)


def parts_of(batches, share):
    """What one rank reads of the batches, as `matey.model.boxes.BoxShare` says."""
    samples = [batch.samples for batch in batches]
    return [
        BatchPart(
            about,
            tuple(piece_of(batch, sample, cells) for sample, cells in of_batch),
            num_given=0 if batch.given is None else batch.given.shape[1],
        )
        for batch, about, of_batch in zip(batches, samples, share(samples), strict=True)
    ]


def piece_of(batch, sample, cells):
    history, target, given = batch.history[sample], batch.target[sample], batch.given
    given = None if given is None else given[sample]
    for axis, (side, length) in enumerate(zip(cells, batch.grid, strict=True), start=-3):
        index = torch.arange(side.start, side.stop) % length
        history, target = (fields.index_select(axis, index) for fields in (history, target))
        given = None if given is None else given.index_select(axis, index)
    return Piece(sample, tuple(side.start for side in cells), history, target, given)


def off(ours, expected):
    """Return the relative difference; NaN stays NaN, as it does not in Python's `max`."""
    return (ours - expected).norm() / expected.norm().clamp_min(torch.finfo(expected.dtype).tiny)


class Group:
    """Ranks in threads, which tell each other what `matey.model.sequence_group.Exchange` says."""

    def __init__(self, size):
        self.barrier, self.told = threading.Barrier(size, timeout=60), [None] * size

    def run(self, work):
        """Return what `work(rank, exchange)` gives on each rank."""
        found = [None] * len(self.told)

        def work_of(rank):
            try:
                found[rank] = work(rank, InThread(self, rank))
            except BaseException as error:
                found[rank] = error
                self.barrier.abort()

        threads = [threading.Thread(target=work_of, args=(rank,)) for rank in range(len(self.told))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        errors = [error for error in found if isinstance(error, BaseException)]
        if errors:  # one that the others' barriers broke at tells less
            raise min(errors, key=lambda error: isinstance(error, threading.BrokenBarrierError))
        return found


class InThread:
    def __init__(self, group, rank):
        self.group, self.rank = group, rank

    def tell(self, values):
        self.group.told[self.rank] = values
        self.group.barrier.wait()
        told = list(self.group.told)
        self.group.barrier.wait()
        return told

    def gather(self, own, counts):
        told = self.tell(own)
        assert [len(values) for values in told] == list(counts)
        return torch.cat(told)

    def swap(self, values, send, receive):
        told = [values[self.rank] for values in self.tell(values.split(list(send)))]
        assert [len(values) for values in told] == list(receive)
        return torch.cat(told)
