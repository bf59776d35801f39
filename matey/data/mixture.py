"""The training stream: which windows make up the global batch of a step, and the micro-batches that a rank reads.

Nothing here has a state: a step number is all that a run needs to go on where it stopped.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from torch import Generator
from torch.utils.data import DataLoader, Dataset

from matey.data.trajectories import DataError, TrajectorySet
from matey.data.windows import Window, num_starts, read_windows
from matey.fields import FieldBatch


class Mixture:
    """Several systems mixed by weight; the global batch of a step is a pure function of ``(seed, step, size)``."""

    def __init__(
        self,
        sets: Sequence[TrajectorySet],
        train_trajectories: Sequence[Sequence[int]],
        weights: Sequence[float],
        num_frames: int,
        lead_max: int,
        seed: int,
    ) -> None:
        """Mix the training trajectories of ``sets``.

        Args:
            sets: the data sets of the run.
            train_trajectories: per set, the trajectories to draw from.
            weights: per set, its share of the samples, up to a common factor.
            num_frames: frames of history, ``T``.
            lead_max: largest lead time in snapshots.
            seed: of all draws.

        Raises:
            DataError: a trajectory is shorter than ``num_frames + 1``, a set has nothing to draw from, or a weight is
                not positive.
        """
        if not len(sets) == len(train_trajectories) == len(weights) > 0:
            raise DataError(
                f"Expected trajectories and a weight for each of {len(sets)} data sets, "
                f"got {len(train_trajectories)} and {len(weights)}."
            )
        for source, trajectories, weight in zip(sets, train_trajectories, weights, strict=True):
            if not 0 < weight < float("inf"):
                raise DataError(f"The weight of {source.system} must be positive, got {weight}; or leave the set out.")
            if len(trajectories) == 0:
                raise DataError(f"No trajectory of {source.system} is left for training; raise its train fraction.")
            for trajectory in trajectories:
                num_starts(source.trajectories[trajectory], num_frames, follow=1)  # raises where none fits
        assert lead_max >= 1, f"lead_max is {lead_max}"
        self.sets = tuple(sets)
        self.num_frames = num_frames
        self._train = tuple(tuple(trajectories) for trajectories in train_trajectories)
        self._borders = np.cumsum(weights)[:-1] / np.sum(weights)
        self._lead_max = lead_max
        self._seed = seed

    def global_batch(self, step: int, size: int) -> list[Window]:
        """Draw the ``size`` windows of one step, in random order.

        How many come from each set is found by systematic sampling: within one of ``size`` times the set's share in
        every step, and equal to it on average. The trajectory is uniform in its set, the lead time in 1 to
        ``lead_max`` (or what the trajectory allows), the start among those that leave room for both.
        """
        random = np.random.default_rng([self._seed, step])
        points = (random.random() + np.arange(size)) / size
        set_indices = np.searchsorted(self._borders, points, side="right")
        return [self._draw(random, int(set_index)) for set_index in random.permutation(set_indices)]

    def _draw(self, random: np.random.Generator, set_index: int) -> Window:
        trajectory = self._train[set_index][random.integers(len(self._train[set_index]))]
        about = self.sets[set_index].trajectories[trajectory]
        lead = int(random.integers(1, min(self._lead_max, about.num_frames - self.num_frames), endpoint=True))
        start = int(random.integers(num_starts(about, self.num_frames, follow=lead)))
        return Window(set_index, trajectory, start, lead)


def micro_batches(
    mixture: Mixture,
    first_step: int,
    num_steps: int,
    micro_batch: int,
    accumulation: int,
    rank: int,
    num_ranks: int,
    workers: int = 0,
    start_method: str | None = None,
) -> Iterator[list[FieldBatch]]:
    """Yield the ``num_steps * accumulation`` micro-batches that this rank reads from ``first_step`` on.

    The global batch of a step has ``micro_batch * accumulation * num_ranks`` windows, cut into ``accumulation``
    chunks; of each, rank ``r`` reads the ``r``-th part of ``micro_batch`` windows. So the samples of a step depend on
    the global size alone, not on how it is cut. ``rank`` counts data-parallel ranks: those of one sequence group pass
    the same number.

    Args:
        mixture: what to draw from.
        first_step: number of the first step, the one after the last that was finished.
        num_steps: how many steps.
        micro_batch: samples of one micro-batch on one rank.
        accumulation: micro-batches per step.
        rank: this data-parallel rank.
        num_ranks: number of data-parallel ranks.
        workers: processes that read ahead; 0 reads in this process.
        start_method: of the workers: ``fork``, ``spawn`` or ``forkserver``; by default the platform's.

    Raises:
        DataError: see ``TrajectorySet.read``; the same sentence whether it came up here or in a worker.
    """
    assert 0 <= rank < num_ranks, f"rank {rank} of {num_ranks}"
    reads = _MicroBatches(mixture, micro_batch, accumulation, rank, num_ranks)
    indices = range(first_step * accumulation, (first_step + num_steps) * accumulation)
    if workers == 0:
        items = map(reads.__getitem__, indices)
    else:
        items = DataLoader(
            reads,
            batch_size=None,
            sampler=indices,
            num_workers=workers,
            multiprocessing_context=start_method,
            collate_fn=_as_it_is,
            # Without its own, the loader draws a seed from torch's global generator, and a run with workers would
            # differ from one without.
            generator=Generator(),
        )
    return _or_raise(items)


class _MicroBatches(Dataset):
    """The micro-batches of one rank, numbered through all steps; an error is an item, so that no traceback hides it."""

    def __init__(self, mixture: Mixture, micro_batch: int, accumulation: int, rank: int, num_ranks: int) -> None:
        self.mixture = mixture
        self.micro_batch = micro_batch
        self.accumulation = accumulation
        self.rank = rank
        self.num_ranks = num_ranks

    def __getitem__(self, index: int) -> list[FieldBatch] | DataError:
        step, chunk = divmod(index, self.accumulation)
        windows = self.mixture.global_batch(step, self.micro_batch * self.accumulation * self.num_ranks)
        first = (chunk * self.num_ranks + self.rank) * self.micro_batch
        try:
            return read_windows(self.mixture.sets, windows[first : first + self.micro_batch], self.mixture.num_frames)
        except DataError as error:
            return error


def _as_it_is(item: list[FieldBatch] | DataError) -> list[FieldBatch] | DataError:
    return item


def _or_raise(items: Iterator[list[FieldBatch] | DataError]) -> Iterator[list[FieldBatch]]:
    for item in items:
        if isinstance(item, DataError):
            raise item
        yield item
