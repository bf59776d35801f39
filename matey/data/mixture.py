"""The training stream: which windows make up the global batch of a step, and the micro-batches that a rank reads.

Nothing here has a state: a step number is all that a run needs to go on where it stopped.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from matey.data.reading import is_sound, read_windows
from matey.data.reading_parts import read_parts
from matey.data.shuffled import shuffled
from matey.data.trajectories import BadValuesError, DataError, TrajectorySet
from matey.data.windows import Window, num_starts
from matey.data.workers import check_temporary_folder, end_at_exit, leave_signals_to_the_run
from matey.fields import FieldBatch
from matey.samples import BatchPart, Box, Samples

# Of windows drawn in place of a bad one; if all are bad as well, there is not much that a run could learn from.
_MAX_DRAWS = 100

ORDER = 2
"""Number of the way in which windows are drawn; a run that goes on with another one meets other samples."""


class Mixture:
    """Several systems mixed by weight; the global batch of a step is a pure function of ``(seed, step)`` and its size.

    Attributes:
        train: indices of the trajectories of each set that are drawn from.
        shares: share of the samples that each set has.
    """

    def __init__(
        self,
        sets: Sequence[TrajectorySet],
        train_trajectories: Sequence[Sequence[int]],
        weights: Sequence[float],
        num_frames: int,
        lead_max: int = 1,
        seed: int = 0,
        temperature: float = 0.0,
    ) -> None:
        """Mix the training trajectories of ``sets``; a set's share is its weight times its windows^temperature.

        Args:
            sets: the data sets of the run.
            train_trajectories: the trajectories of each set to draw from.
            weights: a factor for each set, which multiplies its share of the samples.
            num_frames: frames of history, ``T``.
            lead_max: largest lead time in snapshots.
            seed: seed of all draws.
            temperature: power of the number of windows in the share of a set: 0 leaves sizes out, 1 goes by size.

        Raises:
            DataError: a trajectory is shorter than ``num_frames + 1``, a set has nothing to draw from, or a weight is
                not positive.
        """
        if not len(sets) == len(train_trajectories) == len(weights) > 0:
            raise DataError(
                f"Expected trajectories and a weight for each of {len(sets)} data sets, "
                f"got {len(train_trajectories)} and {len(weights)}."
            )
        sizes = []
        for source, trajectories, weight in zip(sets, train_trajectories, weights, strict=True):
            if not 0 < weight < float("inf"):
                raise DataError(f"The weight of {source.system} must be positive, got {weight}; or leave the set out.")
            if len(trajectories) == 0:
                raise DataError(f"No trajectory of {source.system} is left for training; raise its train fraction.")
            sizes.append(sum(num_starts(source.trajectories[t], num_frames, follow=1) for t in trajectories))
        assert lead_max >= 1, f"lead_max is {lead_max}"
        self.sets = tuple(sets)
        self.num_frames = num_frames
        self.train = tuple(tuple(trajectories) for trajectories in train_trajectories)
        # Over the largest size, whose power would overflow by itself.
        shares = np.asarray(weights) * (np.asarray(sizes) / max(sizes)) ** temperature
        self.shares = tuple((shares / shares.sum()).tolist())
        self._borders = np.cumsum(shares)[:-1] / np.sum(shares)
        self._lead_max = lead_max
        # The number of a draw decides what a sample skips (drop path): other seeds skip otherwise.
        self._first_draw = seed % 2**22 << 40
        self._seed = seed

    def global_batch(self, step: int, size: int, run_length: int = 1, slots: range | None = None) -> list[Window]:
        """Draw windows of one step, in random order; each is found without drawing the others.

        How many come from each set is found by systematic sampling: within one of ``size`` times the set's share in
        every step, and equal to it on average. The trajectory is uniform in its set, the lead time in 1 to
        ``lead_max`` (or what the trajectory allows), the start among those that leave room for both.

        Args:
            step: the step.
            size: number of windows of the step, a multiple of ``run_length``.
            run_length: number of consecutive windows that come from one set. Sets are then drawn for whole runs of
                windows, and the counts above are counts of runs.
            slots: the windows to draw, by their places in the global batch; by default all.
        """
        assert size % run_length == 0, f"{size} windows in runs of {run_length}"
        num_runs = size // run_length
        chosen = np.asarray(range(size) if slots is None else slots, dtype=np.uint64)
        random = np.random.default_rng([self._seed, step])
        offset, key = random.random(), int(random.integers(2**63))
        points = (offset + shuffled(chosen // np.uint64(run_length), num_runs, key)) / num_runs
        set_indices = np.searchsorted(self._borders, points, side="right")
        return [
            self._draw(step, int(slot), 0, int(set_index), self._first_draw + step * size + int(slot))
            for slot, set_index in zip(chosen, set_indices, strict=True)
        ]

    def further(self, window: Window, frames: int) -> Window:
        """Move the target of a window so many frames on, or to the last frame of its trajectory."""
        about = self.sets[window.set_index].trajectories[window.trajectory]
        return replace(window, lead=min(window.lead + frames, about.num_frames - self.num_frames - window.start))

    def in_place_of(self, window: Window, step: int, slot: int, further: int = 0) -> Window:
        """Draw a sound window of the same set in place of one that holds NaN or infinity.

        A pure function of ``(seed, step, slot)`` and the data, so it is the same on whatever rank the slot falls.

        Args:
            window: the window that holds NaN or infinity.
            step: the step.
            slot: the window's place in the global batch.
            further: frames by which its target moves on, see `further`.

        Raises:
            BadValuesError: many draws found none.
        """
        for attempt in range(1, _MAX_DRAWS + 1):
            other = self.further(self._draw(step, slot, attempt, window.set_index, window.draw), further)
            if is_sound(self.sets, other, self.num_frames):
                return other
        source = self.sets[window.set_index]
        raise BadValuesError(
            f"{source.trajectories[window.trajectory].label}: expected windows free of NaN and infinity, but of "
            f"{_MAX_DRAWS} drawn from {source.system} none is; mend the data or leave the set out."
        )

    def _draw(self, step: int, slot: int, attempt: int, set_index: int, draw: int) -> Window:
        # Slots from 1 on: NumPy takes [seed, step], from which the step draws, and [seed, step, 0, 0] for the same.
        random = np.random.default_rng([self._seed, step, slot + 1, attempt])
        trajectory = self.train[set_index][random.integers(len(self.train[set_index]))]
        about = self.sets[set_index].trajectories[trajectory]
        lead = int(random.integers(1, min(self._lead_max, about.num_frames - self.num_frames), endpoint=True))
        start = int(random.integers(num_starts(about, self.num_frames, follow=lead)))
        return Window(set_index, trajectory, start, lead, draw)


def micro_batches(
    mixture: Mixture,
    first_step: int,
    num_steps: int,
    micro_batch: int,
    accumulation: int = 1,
    rank: int = 0,
    num_ranks: int = 1,
    workers: int = 0,
    start_method: str | None = None,
    same_system: bool = False,
    bad_values: Literal["refuse", "skip"] = "refuse",
    further: Callable[[int], int] | None = None,
    share: Callable[[Sequence[Samples]], Sequence[Sequence[Box]]] | None = None,
    finish: Callable[[int, Any], Any] | None = None,
) -> Generator[Any, None, None]:
    """Yield the ``num_steps * accumulation`` micro-batches that this rank reads from ``first_step`` on.

    The global batch of a step has ``micro_batch * accumulation * num_ranks`` windows, cut into ``accumulation``
    chunks; of each, rank ``r`` reads the ``r``-th part of ``micro_batch`` windows. So the samples of a step depend on
    the global size alone, not on how it is cut (with ``same_system``, on ``micro_batch`` too). ``rank`` counts
    data-parallel ranks: those of one sequence group pass the same number.

    Args:
        mixture: the data sets, mixed.
        first_step: number of the first step, the one after the last that was finished.
        num_steps: number of steps.
        micro_batch: samples of one micro-batch on one rank.
        accumulation: micro-batches per step.
        rank: this data-parallel rank.
        num_ranks: number of data-parallel ranks.
        workers: processes that read ahead; 0 reads in this process.
        start_method: start method of the workers: ``fork``, ``spawn`` or ``forkserver``; by default the platform's.
        same_system: whether each micro-batch holds windows of one set only.
        bad_values: whether a window with NaN or infinity is an error, or another is drawn in its place.
        further: function that takes the number of a micro-batch, counted from the start of the run, and returns the
            number of frames by which its targets move on, see `Mixture.further`; by default targets stay. With workers,
            it is sent to them.
        share: function that says which boxes of the fields to read, see `read_parts`; by default all. Sent to workers likewise.
        finish: function of a micro-batch's number, counted likewise, and of its batches, that returns what is yielded in
            their place; called where they are read, and sent to workers as ``further`` is.

    Raises:
        DataError: see ``TrajectorySet.read``; the same sentence whether it came up here or in a worker. Or workers cannot
            hand over what they read.
    """
    assert 0 <= rank < num_ranks, f"rank {rank} of {num_ranks}"
    run_length, skip_bad = (micro_batch if same_system else 1), bad_values == "skip"
    reads = _MicroBatches(
        mixture, micro_batch, accumulation, rank, num_ranks, run_length, skip_bad, further, share, finish
    )
    indices = range(first_step * accumulation, (first_step + num_steps) * accumulation)
    items: Iterable[Any]
    if workers == 0:
        items = map(reads.__getitem__, indices)
    else:
        check_temporary_folder()
        items = DataLoader(
            reads,
            batch_size=None,
            sampler=indices,
            num_workers=workers,
            multiprocessing_context=start_method,
            worker_init_fn=leave_signals_to_the_run,
            collate_fn=_as_it_is,
            # Without its own, the loader draws a seed from torch's global generator, and a run with workers would
            # differ from one without.
            generator=torch.Generator(),
        )
    children = {child.pid for child in multiprocessing.active_children()}
    reading: Iterator[Any] = iter(items)  # workers start here, in the thread that signals go to
    if workers:
        end_at_exit(reading, children)
    return _or_raise(reading)


@dataclass(frozen=True)
class _MicroBatches(Dataset[Any]):
    """The micro-batches of one rank, numbered through all steps; an error is an item, so that no traceback hides it.

    What is not said here is as in `micro_batches`.

    Attributes:
        run_length: number of consecutive windows that come from one set, see `Mixture.global_batch`.
        skip_bad: whether another window is drawn in place of one with NaN or infinity.
    """

    mixture: Mixture
    micro_batch: int
    accumulation: int
    rank: int
    num_ranks: int
    run_length: int
    skip_bad: bool
    further: Callable[[int], int] | None
    share: Callable[[Sequence[Samples]], Sequence[Sequence[Box]]] | None
    finish: Callable[[int, Any], Any] | None

    def __getitem__(self, index: int) -> Any:  # noqa: ANN401
        try:
            batches = self._read(*divmod(index, self.accumulation))
            return batches if self.finish is None else self.finish(index, batches)
        except DataError as error:
            return error

    def _read(self, step: int, chunk: int) -> list[FieldBatch] | list[BatchPart]:
        sets, num_frames = self.mixture.sets, self.mixture.num_frames
        size = self.micro_batch * self.accumulation * self.num_ranks
        first = (chunk * self.num_ranks + self.rank) * self.micro_batch
        further = self.further(step * self.accumulation + chunk) if self.further else 0
        drawn = self.mixture.global_batch(step, size, self.run_length, range(first, first + self.micro_batch))
        windows = [self.mixture.further(window, further) for window in drawn]
        if self.share is not None:
            return read_parts(sets, windows, num_frames, self.share)
        try:
            return read_windows(sets, windows, num_frames)
        except BadValuesError:
            if not self.skip_bad:
                raise
        for slot, window in enumerate(windows):
            if not is_sound(sets, window, num_frames):
                windows[slot] = self.mixture.in_place_of(window, step, first + slot, further)
        return read_windows(sets, windows, num_frames)


def _as_it_is(item: Any) -> Any:  # noqa: ANN401
    return item


def _or_raise(items: Iterator[Any]) -> Generator[Any, None, None]:
    for item in items:
        if isinstance(item, DataError):
            error = item
            break
        yield (item, item := None)[0]  # no name is left here: who takes it decides how long it lies in memory
    else:
        return
    # Else the error holds this frame, which holds the error and what ends the workers once nothing refers to it.
    try:
        raise error
    finally:
        del items, item, error
