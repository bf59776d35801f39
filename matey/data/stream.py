"""Reads the micro-batches of a training run for one rank, in this process or in workers.

Nothing here has a state: a run needs only its step number to continue where it stopped.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.queues
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.util import Finalize
from types import FrameType
from typing import Any, Literal, NoReturn

import torch
from torch.utils.data import DataLoader, Dataset

from matey.data.reading import ShareOut, is_sound, read_parts, read_windows
from matey.data.trajectories import BadValuesError, DataError
from matey.data.windows import Mixture, Window
from matey.fields import BatchPart, FieldBatch
from matey.process.ending import end_workers, worker_files
from matey.process.signals import END_READING


def leave_signals_to_the_run(worker: int, is_child: bool = True) -> None:
    """Make a worker ignore the signals that ask its run to leave, since Slurm and terminals send them to every process.

    It ends if the run, whose child it is unless a server forks it, was killed meanwhile: PyTorch's watchdog, which starts next,
    would take whatever has adopted the worker for its run, and the worker would never end.
    """
    for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    # The folder of its sockets is made before it can be asked to end: in between, it would be left behind.
    signal.pthread_sigmask(signal.SIG_BLOCK, [END_READING])
    run = multiprocessing.parent_process()
    assert run is not None and run.pid is not None, "a worker is a process of a run"
    folder = None
    with suppress(OSError):  # is raised again where the folder is needed
        folder = tempfile.mkdtemp(prefix=worker_files(run.pid))
        multiprocessing.current_process()._config["tempdir"] = folder  # type: ignore[attr-defined]
        Finalize(None, shutil.rmtree, (folder,), {"ignore_errors": True}, exitpriority=-100)
    signal.signal(END_READING, partial(_end, folder))
    if is_child and os.getppid() != run.pid:
        _end(folder, END_READING, None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [END_READING])
    # By default a worker drops data that it cannot hand over, and the process that reads from it would wait for ever.
    multiprocessing.queues.Queue._on_queue_feeder_error = staticmethod(_end_by)  # type: ignore[attr-defined]


def end_at_exit(items: Any, before: set[int | None]) -> None:  # noqa: ANN401
    """Make an interpreter that exits while workers still read for it end them, rather than wait for them for ever.

    At exit, multiprocessing asks workers to end by SIGTERM, which ours ignore.

    Args:
        items: iterator over the data that the workers read.
        before: process numbers of the children that existed before the workers.
    """
    workers = [child for child in multiprocessing.active_children() if child.pid not in before]
    # With priority 0 or more, it is called before multiprocessing asks its children to end.
    Finalize(items, end_workers, (workers,), exitpriority=0)


@contextmanager
def ends_of_workers_heard_later() -> Iterator[None]:
    """Delay the error about a worker that dies until the block ends: the loader raises it anywhere, such as in a save."""
    before = signal.getsignal(signal.SIGCHLD)
    heard: list[FrameType | None] = []
    signal.signal(signal.SIGCHLD, lambda number, frame: heard.append(frame))
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, before)
    if heard and callable(before):
        before(signal.SIGCHLD, heard[0])


def _end_by(error: Exception, item: object) -> NoReturn:
    """End this worker, which could not hand over its data; the process that reads from it notices the end."""
    sys.stderr.write(f"A process that reads data cannot hand over what it has read ({error}): is /dev/shm full?\n")
    sys.stderr.flush()
    os._exit(1)


def _end(folder: str | None, number: int, frame: FrameType | None) -> NoReturn:
    """Remove this worker's folder of temporary files and end.

    An exception instead could be raised while a queue holds its lock, and the worker would wait for that lock for ever.
    """
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)
    os._exit(0)


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
    share: ShareOut | None = None,
    finish: Callable[[int, Any], Any] | None = None,
    on_any: Callable[[bool], bool] | None = None,
) -> Generator[Any, None, None]:
    """Yield the ``num_steps * accumulation`` micro-batches that this rank reads from ``first_step`` on.

    The global batch of a step has ``micro_batch * accumulation * num_ranks`` windows, cut into ``accumulation`` slices;
    rank ``r`` reads the ``r``-th ``micro_batch`` windows of each. The samples of a step thus depend on the global size
    alone, not on how it is cut (with ``same_system``, on ``micro_batch`` too). ``rank`` counts data-parallel ranks: the
    ranks of one sequence group pass the same number.

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
        bad_values: ``refuse`` raises an error for a window with NaN or infinity, ``skip`` draws another in its place.
        further: function that takes the number of a micro-batch, counted from the start of the run, and returns the
            number of frames by which its targets move on, see `Mixture.further`; by default targets stay. With workers,
            it is sent to them.
        share: function that returns the boxes of the fields to read, see `read_parts`; by default all are read. It is sent to
            workers as ``further`` is.
        finish: function of a micro-batch's number, counted likewise, and its batches, whose result is yielded in their place.
            It is called where the batches are read, so it is sent to workers likewise.
        on_any: function that returns whether a condition holds on any of the ranks that share windows; all of them call it for
            every micro-batch. It is needed where ranks read parts and skip bad windows: one may meet values that others do not.

    Raises:
        DataError: see ``TrajectorySet.read``, with the same message from a worker; or workers cannot hand over their data.
    """
    assert 0 <= rank < num_ranks, f"rank {rank} of {num_ranks}"
    assert share is None or bad_values == "refuse" or on_any is not None, "ranks have to agree on what they skip"
    run_length, skip_bad = (micro_batch if same_system else 1), bad_values == "skip"
    reads = _MicroBatches(
        mixture, micro_batch, accumulation, rank, num_ranks, run_length, skip_bad, further, share, finish
    )
    indices = range(first_step * accumulation, (first_step + num_steps) * accumulation)
    items: Iterable[Any]
    if workers == 0:
        items = map(reads.__getitem__, indices)
    else:
        method = start_method or multiprocessing.get_start_method()
        items = DataLoader(
            reads,
            batch_size=None,
            sampler=indices,
            num_workers=workers,
            multiprocessing_context=start_method,
            worker_init_fn=partial(leave_signals_to_the_run, is_child=method != "forkserver"),
            collate_fn=_as_it_is,
            # Without its own, the loader draws a seed from torch's global generator, and a run with workers would
            # differ from one without.
            generator=torch.Generator(),
        )
    children = {child.pid for child in multiprocessing.active_children()}
    reading: Iterator[Any] = iter(items)  # workers start here, in the thread that receives signals
    if workers:
        end_at_exit(reading, children)
    if on_any is not None:
        reading = _sound(reading, indices, reads, on_any)
    return _or_raise(reading)


@dataclass(frozen=True)
class _MicroBatches(Dataset[Any]):
    """The micro-batches of one rank, numbered through all steps; an error is an item, so that no traceback hides it.

    Other attributes are as in `micro_batches`.

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
    share: ShareOut | None
    finish: Callable[[int, Any], Any] | None

    def __getitem__(self, index: int) -> Any:  # noqa: ANN401
        try:
            batches = self._read(index)
            return None if batches is None else self._finished(index, batches)
        except DataError as error:
            return error

    def sound(self, index: int, on_any: Callable[[bool], bool]) -> Any:  # noqa: ANN401
        """Read a micro-batch with other windows in place of bad ones, together with all ranks that share the windows."""
        assert self.share is not None
        share, mixture = self.share, self.mixture

        def is_sound_here(window: Window) -> bool:
            try:
                read_parts(mixture.sets, [window], mixture.num_frames, share)
            except BadValuesError:
                return False
            return True

        try:
            windows = self._replaced(index, lambda window: not on_any(not is_sound_here(window)))
            return self._finished(index, read_parts(mixture.sets, windows, mixture.num_frames, share))
        except DataError as error:
            return error

    def _finished(self, index: int, batches: Any) -> Any:  # noqa: ANN401
        return batches if self.finish is None else self.finish(index, batches)

    def _read(self, index: int) -> list[FieldBatch] | list[BatchPart] | None:
        """Read a micro-batch; None where this rank's part is bad, and ranks must agree since other parts may be sound."""
        sets, num_frames = self.mixture.sets, self.mixture.num_frames
        windows, *_ = self._drawn(index)
        try:
            if self.share is not None:
                return read_parts(sets, windows, num_frames, self.share)
            return read_windows(sets, windows, num_frames)
        except BadValuesError:
            if not self.skip_bad:
                raise
        if self.share is not None:
            return None
        windows = self._replaced(index, lambda window: is_sound(sets, window, num_frames))
        return read_windows(sets, windows, num_frames)

    def _drawn(self, index: int) -> tuple[list[Window], int, int, int]:
        """Return a micro-batch's windows, its step, its first place in the global batch, and the shift of targets in frames."""
        step, chunk = divmod(index, self.accumulation)
        size = self.micro_batch * self.accumulation * self.num_ranks
        first = (chunk * self.num_ranks + self.rank) * self.micro_batch
        further = self.further(index) if self.further else 0
        drawn = self.mixture.global_batch(step, size, self.run_length, range(first, first + self.micro_batch))
        return [self.mixture.further(window, further) for window in drawn], step, first, further

    def _replaced(self, index: int, is_sound: Callable[[Window], bool]) -> list[Window]:
        """Return the windows of a micro-batch, others in place of those that are not sound."""
        windows, step, first, further = self._drawn(index)
        for slot, window in enumerate(windows):
            if not is_sound(window):
                windows[slot] = self.mixture.in_place_of(window, step, first + slot, is_sound, further)
        return windows


def _sound(
    items: Iterator[Any], indices: Iterable[int], reads: _MicroBatches, on_any: Callable[[bool], bool]
) -> Iterator[Any]:
    """Yield micro-batches, and read those again that are bad on any rank."""
    for index in indices:
        item = next(items)
        if on_any(item is None):
            item = reads.sound(index, on_any)
        yield (item, item := None)[0]  # see `_or_raise`


def _as_it_is(item: Any) -> Any:  # noqa: ANN401
    return item


def _or_raise(items: Iterator[Any]) -> Generator[Any, None, None]:
    for item in items:
        if isinstance(item, DataError):
            error = item
            break
        yield (item, item := None)[0]  # no reference stays here: the caller decides how long it lies in memory
    else:
        return
    # Else the error refers to this frame, and this frame to the error and to the iterator, whose deletion ends the workers.
    try:
        raise error
    finally:
        del items, item, error
