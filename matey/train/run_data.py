"""The data of a run, for training and for validation, and the windows and scales that follow from it."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from matey.checkpoints.run_files import INDEX
from matey.config import CoarsenedSection, ConfigError, RunConfig
from matey.config.choices import LOSSES
from matey.data import open_dataset, open_sets
from matey.data.coarsened import CoarsenedTrajectories
from matey.data.index import Index
from matey.data.mixture import Mixture
from matey.data.reading import sound_windows
from matey.data.split_record import SplitRecord, labels_of
from matey.data.splits import Split
from matey.data.trajectories import DataError, TrajectorySet
from matey.data.windows import Window, num_starts, spread_windows
from matey.mistakes import regular
from matey.parallel.agreement import code_fingerprint
from matey.parallel.collectives import done_by_rank_zero, rank, shared_out
from matey.train.loss import LossScale
from matey.train.losses import Loss
from matey.train.persistence import persistence_by_system
from matey.train.run_split import split_run


@dataclass(frozen=True)
class RunData:
    """The data of a run.

    Attributes:
        sets: the data sets that are trained on.
        splits: the split of the trajectories of each of these sets.
        others: the data sets that are only validated on.
        mixture: the stream of samples: of the training sets first, then of coarser views of them.
        record: the trajectories of each part, recorded for the run's folder.
        index: descriptions of the files, kept in the run's folder.
        notes: sentences about the splits, if there is anything to say.
    """

    sets: tuple[TrajectorySet, ...]
    splits: tuple[Split, ...]
    others: tuple[TrajectorySet, ...]
    mixture: Mixture
    record: SplitRecord
    index: Index
    notes: tuple[str, ...] = ()

    @property
    def all_sets(self) -> tuple[TrajectorySet, ...]:
        """The training data sets, then those for validation only."""
        return (*self.sets, *self.others)

    @property
    def sets_and_views(self) -> tuple[TrajectorySet, ...]:
        """The data sets for training, those for validation only, then the coarser views."""
        return (*self.all_sets, *self.mixture.sets[len(self.sets) :])

    @property
    def fields(self) -> tuple[str, ...]:
        """Every field once, in the order of the sets."""
        return tuple(dict.fromkeys(name for data in self.all_sets for name in data.fields))


def open_data(run: RunConfig) -> RunData:
    """Open and split the data of a run; a resumed run keeps the split that it started with.

    All ranks must call, with the same run. One rank describes each file, unless the run's index has its description.

    Raises:
        ConfigError: validation data is trained on, or the data or its split is not the one that the run started with.
        DataError: some of the data cannot be used.
    """
    index = Index(*(code_fingerprint(), bytes_of(Path(run.output.dir) / INDEX)) if rank() == 0 else ("", b""))
    sets = tuple(data.with_given(run.model.given) for data in open_sets(run.data, shared_out, index))
    others = tuple(
        open_dataset(path, share=shared_out, index=index).with_given(run.model.given) for path in run.data.validate_on
    )
    if others:
        done_by_rank_zero(lambda: _check_others(run, sets, others))
    if len({each.split_by for each in run.data.sets}) > 1:
        done_by_rank_zero(lambda: _check_cuts(run, sets))
    splits, record, notes = split_run(run, sets)
    notes = (*notes, *_short_tests(run, sets, splits))
    views = [each for view in (None, *run.data.coarsened) for each in _views(run, sets, splits, view)]
    mixed, train, weights = zip(*views, strict=True)
    mixture = Mixture(mixed, train, weights, run.data.history, run.data.lead_max, run.train.seed, run.data.temperature)
    return RunData(sets, splits, others, mixture, record, index, notes)


def validation_windows(run: RunConfig, data: RunData) -> list[Window]:
    """Return the windows to validate on, of ``data.all_sets``.

    Raises:
        ConfigError: the split leaves nothing of a set to validate on.
    """
    for source, split in zip(data.sets, data.splits, strict=True):
        if not split.valid:
            raise ConfigError(
                f"data.split is {list(run.data.split)}, which leaves no trajectory of {source.system} to validate on and "
                "choose the best weights by; give its second number a share, such as [0.9, 0.1, 0]; where there are fewer "
                "trajectories than parts, split_by: time of the set cuts the frames of each."
            )
    held_back = [*(split.valid for split in data.splits), *(range(other.num_trajectories) for other in data.others)]
    return _windows_of(run, data.all_sets, held_back)


def chosen_by(run: RunConfig, data: RunData, windows: Sequence[Window]) -> str:
    """Return a hash of what the best weights are chosen by: the windows of sets that are trained on, and the average.

    Args:
        run: the run.
        data: data of the run.
        windows: the windows to validate on, of ``data.all_sets``.
    """
    labels = [labels_of(source) for source in data.sets]
    told = [
        (window.set_index, labels[window.set_index][about.source], about.name, window.start, window.lead)
        for window in windows
        if window.set_index < len(data.sets)
        for about in [data.sets[window.set_index].trajectories[window.trajectory]]
    ]
    return hashlib.sha256(json.dumps([run.train.ema, told]).encode()).hexdigest()[:12]


def loss_scales(run: RunConfig, data: RunData) -> dict[str, LossScale]:
    """Return the error that counts as a loss of 1 for each system, as ``train.loss`` asks for.

    Raises:
        ConfigError: the loss of a system that does not change cannot be balanced.
    """
    loss: Loss = LOSSES[run.train.loss]
    if loss.balanced:
        windows = _windows_of(run, data.mixture.sets, data.mixture.train)
        errors = persistence_by_system(data.mixture.sets, windows, run.data.history, loss)
        if still := [system for system, of_leads in errors.items() if 0 in of_leads.values()]:
            raise ConfigError(
                f"train.loss is {run.train.loss!r} and divides by the error of persistence, but {still[0]} does not change; "
                "leave its data out, or set train.loss to 'nrmse'."
            )
        return {system: LossScale.through(of_leads) for system, of_leads in errors.items()}
    return dict.fromkeys((source.system for source in data.mixture.sets), LossScale())


def _views(
    run: RunConfig, sets: Sequence[TrajectorySet], splits: Sequence[Split], view: CoarsenedSection | None
) -> Iterator[tuple[TrajectorySet, tuple[int, ...], float]]:
    """Yield each data set, as it is or in a coarser view, with its training trajectories and its weight."""
    for data, split, section in zip(sets, splits, run.data.sets, strict=True):
        if view is None:
            yield data, split.train, section.weight
        else:
            coarser = CoarsenedTrajectories(data, view.frames, view.cells)
            # The change per step is another one in a coarser view: its loss has a scale of its own.
            coarser.system = f"{data.system}, {coarser.view}"
            yield coarser, split.train, section.weight * view.weight


def _check_others(run: RunConfig, sets: Sequence[TrajectorySet], others: Sequence[TrajectorySet]) -> None:
    """Raise ConfigError if a file that is only to be validated on is trained on."""
    known = {_identity(source) for data in sets for source in data.sources}
    for path, data in zip(run.data.validate_on, others, strict=True):
        if both := [source for source in data.sources if _identity(source) in known]:
            raise ConfigError(
                f"data.validate_on: {path} holds {min(both)}, which data.sets trains on; leave it out there, since every "
                "set is validated on its own valid part."
            )


def _check_cuts(run: RunConfig, sets: Sequence[TrajectorySet]) -> None:
    """Raise ConfigError if a file is cut in time in one data set but not in another, which may train on held-out frames."""
    kinds = [each.split_by for each in run.data.sets]
    known = {
        _identity(source) for data, kind in zip(sets, kinds, strict=True) if kind == "time" for source in data.sources
    }
    for data, kind in zip(sets, kinds, strict=True):
        if kind != "time" and (both := [source for source in data.sources if _identity(source) in known]):
            raise ConfigError(
                f"data.sets: {min(both)} is in a set that split_by: time cuts and in one that stays whole, which would train "
                "on frames that are held out; leave it out of one of them, or cut both."
            )


def _short_tests(run: RunConfig, sets: Sequence[TrajectorySet], splits: Sequence[Split]) -> Iterator[str]:
    """Yield a sentence for each data set with a test trajectory that is too short for any forecast."""
    for data, split in zip(sets, splits, strict=True):
        try:
            for number in split.test:
                num_starts(data.trajectories[number], run.data.history, 1)
        except DataError as error:
            yield f"What is held out cannot be evaluated: {error}"


def bytes_of(path: Path) -> bytes:
    """Return the bytes of a file of the run's folder; none if it cannot be read, as before the run has started."""
    try:
        return regular(path).read_bytes()
    except OSError:
        return b""


def _identity(source: Path) -> tuple[int, int]:
    """Return the identity of a file, the same for all links to it, symbolic or hard."""
    about = source.stat()
    return about.st_dev, about.st_ino


def _largest_lead(run: RunConfig, data: TrajectorySet, trajectories: Sequence[int]) -> int:
    """Return ``data.lead_max``, or less if the shortest of the trajectories allows less, as it does in training."""
    shortest = min((data.trajectories[trajectory].num_frames for trajectory in trajectories), default=0)
    return max(1, min(run.data.lead_max, shortest - run.data.history))


def _windows_of(run: RunConfig, sets: Sequence[TrajectorySet], trajectories: Sequence[Sequence[int]]) -> list[Window]:
    """Spread ``train.validation_windows`` per system over its trajectories, half at lead 1 and half at the largest lead."""
    windows: list[Window] = []
    for index, (data, chosen) in enumerate(zip(sets, trajectories, strict=True)):
        leads = sorted({1, _largest_lead(run, data, chosen)})
        count = math.ceil(run.train.validation_windows / len(leads))
        for lead in leads:
            windows += spread_windows(data, chosen, run.data.history, lead, count, set_index=index)
    return sound_windows(sets, windows, run.data.history, shared_out) if run.data.bad_values == "skip" else windows
