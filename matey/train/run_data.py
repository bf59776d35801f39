"""The data of a run, for training and for validation: how it is split, and the windows and scales that follow from it.

A resumed run is split as it was at its start. ``train.loss: balanced`` divides by persistence, the forecast that nothing
changes.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from matey.checkpoints.run_files import SEEN, SPLIT, replace_text
from matey.config import CoarsenedSection, ConfigError, RunConfig
from matey.config.schema import LOSSES
from matey.data import open_dataset, open_sets, split_record
from matey.data.reading import read_box, read_windows, sound_windows
from matey.data.split_record import SplitRecord
from matey.data.splits import Split, fingerprints, split_set
from matey.data.trajectories import DataError, TrajectorySet
from matey.data.views import CoarsenedTrajectories
from matey.data.windows import Mixture, Window, spread_windows
from matey.fields import without_gaps
from matey.metrics import CELLS
from matey.mistakes import listed
from matey.model.configuration import Ranges
from matey.model.given import ranges_of, united, widened
from matey.parallel.collectives import done_by_rank_zero, from_rank_zero, on_one_thread, rank, shared_out
from matey.tokens.normalisation import normalisation_of
from matey.train.folder import cannot_write
from matey.train.loss import NRMSE, Loss, LossScale, weight_of


@dataclass(frozen=True)
class RunData:
    """The data of a run.

    Attributes:
        sets: the data sets that are trained on.
        splits: the split of the trajectories of each of these sets.
        others: the data sets that are only validated on.
        mixture: the stream of samples: of the training sets first, then of coarser views of them.
        record: the trajectories of each part, recorded for the run's folder.
        prints: the fingerprints of the trajectories of each of the training sets, by number.
        notes: sentences about the splits, if there is anything to say.
    """

    sets: tuple[TrajectorySet, ...]
    splits: tuple[Split, ...]
    others: tuple[TrajectorySet, ...]
    mixture: Mixture
    record: SplitRecord
    prints: tuple[Mapping[int, str], ...]
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

    All ranks must call, with the same run. One rank describes each file.

    Raises:
        ConfigError: validation data is trained on, or the data or its split is not the one that the run started with.
        DataError: some of the data cannot be used.
    """
    sets = tuple(data.with_given(run.model.given) for data in open_sets(run.data, shared_out))
    others = tuple(open_dataset(path, share=shared_out).with_given(run.model.given) for path in run.data.validate_on)
    done_by_rank_zero(lambda: _check_apart(run, sets, others))
    prints = tuple(fingerprints(data, range(data.num_trajectories), shared_out) for data in sets)
    splits, record, notes = split_run(run, sets, prints)
    views = [each for view in (None, *run.data.coarsened) for each in _views(run, sets, splits, view)]
    mixed, train, weights = zip(*views, strict=True)
    mixture = Mixture(mixed, train, weights, run.data.history, run.data.lead_max, run.train.seed, run.data.temperature)
    return RunData(sets, splits, others, mixture, record, prints, notes)


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
                "trajectories than parts, split_by: time of the set cuts the frames of each. A run that goes on may have lost "
                "those it held out: bring them back, or begin anew in another output.dir."
            )
    held_back = [*(split.valid for split in data.splits), *(range(other.num_trajectories) for other in data.others)]
    return _windows_of(run, data.all_sets, held_back)


def chosen_by(run: RunConfig, data: RunData, windows: Sequence[Window]) -> str:
    """Return a hash of what the best weights are chosen by: measure, windows of sets that are trained on, and the average.

    Args:
        run: the run.
        data: data of the run.
        windows: the windows to validate on, of ``data.all_sets``.
    """
    labels = [split_record.labels_of(source) for source in data.sets]
    told = [
        (window.set_index, labels[window.set_index][about.source], about.name, window.start, window.lead)
        for window in windows
        if window.set_index < len(data.sets)
        for about in [data.sets[window.set_index].trajectories[window.trajectory]]
    ]
    return hashlib.sha256(json.dumps(["vrmse", run.train.ema, told]).encode()).hexdigest()[:12]


def loss_scales(run: RunConfig, data: RunData) -> dict[str, LossScale]:
    """Return the error that counts as a loss of 1 for each system, as ``train.loss`` asks for.

    Raises:
        ConfigError: the loss of a system that does not change cannot be balanced.
    """
    loss: Loss = LOSSES[run.train.loss]
    windows = _windows_of(run, data.mixture.sets, data.mixture.train)
    # Of another loss only the weights are asked for, and NRMSE reads no more than a few layers at once.
    scales = persistence_by_system(data.mixture.sets, windows, run.data.history, loss if loss.balanced else NRMSE)
    if not loss.balanced:
        return {system: LossScale(weights=weights) for system, (_, weights) in scales.items()}
    if still := [system for system, (of_leads, _) in scales.items() if 0 in of_leads.values()]:
        raise ConfigError(
            f"train.loss is {run.train.loss!r} and divides by the error of persistence, but {still[0]} does not change; "
            "leave its data out, or set train.loss to 'nrmse'."
        )
    return {system: LossScale.through(*found) for system, found in scales.items()}


def weighted_fields(data: RunData, scales: Mapping[str, LossScale]) -> list[str]:
    """Return a sentence on the fields whose mean dwarfs their deviation, of each system that has any."""
    notes = []
    for system in dict.fromkeys(source.system for source in data.sets):
        if large := [f"{name} ({weight:.0f} times)" for name, weight in scales[system].weights.items()]:
            notes.append(
                f"{system}: the loss measures {', '.join(large)} by its deviation, so many times smaller than its size."
            )
    return notes


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


def _check_apart(run: RunConfig, sets: Sequence[TrajectorySet], others: Sequence[TrajectorySet]) -> None:
    """Raise ConfigError if training may see frames that are held out: of a file that is in two data sets in two ways."""
    kinds = [(data, each.split_by == "time") for data, each in zip(sets, run.data.sets, strict=True)]
    cut, whole = ([data for data, is_cut in kinds if is_cut is wanted] for wanted in (True, False))
    for one, two, words in (
        (
            sets,
            others,
            "data.validate_on holds {}, which data.sets trains on; leave it out there, since every set is validated on its own "
            "valid part.",
        ),
        (
            cut,
            whole,
            "data.sets: {} is in a set that split_by: time cuts and in one that stays whole, which would train on frames that "
            "are held out; leave it out of one of them, or cut both.",
        ),
    ):
        # The identity of a file is the same for all links to it, symbolic or hard.
        known = {(about.st_dev, about.st_ino) for data in one for source in data.sources for about in [source.stat()]}
        for source in (source for data in two for source in data.sources if known):
            about = source.stat()
            if (about.st_dev, about.st_ino) in known:
                raise ConfigError(words.format(source))


def _windows_of(run: RunConfig, sets: Sequence[TrajectorySet], trajectories: Sequence[Sequence[int]]) -> list[Window]:
    """Spread ``train.validation_windows`` per system over its trajectories, half at lead 1 and half at the largest lead."""
    windows: list[Window] = []
    for index, (data, chosen) in enumerate(zip(sets, trajectories, strict=True)):
        shortest = min((data.trajectories[trajectory].num_frames for trajectory in chosen), default=0)
        leads = sorted({1, max(1, min(run.data.lead_max, shortest - run.data.history))})  # as in training
        count = math.ceil(run.train.validation_windows / len(leads))
        for lead in leads:
            windows += spread_windows(data, chosen, run.data.history, lead, count, set_index=index)
    return sound_windows(sets, windows, run.data.history, shared_out) if run.data.bad_values == "skip" else windows


def persistence_by_system(
    sets: Sequence[TrajectorySet], windows: Sequence[Window], history: int, loss: Loss
) -> dict[str, tuple[dict[int, float], dict[str, float]]]:
    """Return persistence's mean error on the windows of each system by lead time, and the weights of fields by name.

    Windows are divided among the ranks; only the last frame of the history and the target are read.
    """
    pairs = [replace(window, start=window.start + history - 1) for window in windows]
    with on_one_thread():
        found = shared_out(lambda pair: _persistence(sets, pair, loss), pairs)
    of_systems: dict[str, list[tuple[int, dict[str, Tensor]]]] = {}
    for window, numbers in zip(windows, found, strict=True):
        source = sets[window.set_index]
        of_fields = dict(zip(source.fields, numbers.unbind(dim=1), strict=True))
        of_systems.setdefault(source.system, []).append((window.lead, of_fields))
    scales = {}
    for system, of_windows in of_systems.items():
        weights: dict[str, float] = {}
        for name in dict.fromkeys(name for _, of_fields in of_windows for name in of_fields):
            moments = torch.stack([of_fields[name] for _, of_fields in of_windows if name in of_fields])[:, 1:]
            size, deviation = moments.mean(dim=0).sqrt().tolist()
            if 0 < size < SMALLEST:
                raise ConfigError(
                    f"{system}: {name} has values of {size:.0e}, and changes below 1e-12 count as none; describe the data with "
                    f"another scale of this field, such as scale: {1 / size:.0e}."
                )
            weights[name] = weight_of(size, deviation)
        if loss.balanced and len(weights) == 1:  # it would cancel
            weights = {}
        errors: dict[int, list[float]] = {}
        for lead, of_fields in of_windows:
            weighted = [weights.get(name, 1.0) * numbers[0].item() for name, numbers in of_fields.items()]
            errors.setdefault(lead, []).append(sum(weighted) / len(weighted))
        means = {lead: sum(values) / len(values) for lead, values in sorted(errors.items())}
        scales[system] = means, {name: weight for name, weight in weights.items() if weight != 1}
    return scales


SMALLEST = 1e-9
"""Size below which a field is refused: its changes would fall below the floor of `matey.metrics.NRMSE_EPSILON`."""


AT_ONCE = 2**28
"""Bytes of a frame that are read at once; a larger frame is read a few layers at a time."""


def _persistence(sets: Sequence[TrajectorySet], pair: Window, loss: Loss) -> Tensor:
    """Return the error on a pair of frames, and the target's mean square and variance, ``(3, f)``.

    The frames are read a few layers of the slowest axis at a time, unless a loss looks at neighbours.
    """
    source = sets[pair.set_index]
    grid = source.trajectories[pair.trajectory].grid
    moments = torch.zeros(2, 3, len(source.fields), dtype=torch.float64)
    if loss.halo:
        (batch,) = read_windows(sets, [pair], num_frames=1)
        error = loss.of_frame(batch.last, batch)[0].double()
        moments[1] += _moments(batch.known_target)
    else:
        axis = 0 if grid[0] > 1 else 1
        layers = max(AT_ONCE // (4 * len(source.fields) * math.prod(grid[axis + 1 :])), 1)
        sums = torch.zeros(2, 1, len(source.fields), dtype=torch.float64)
        sides = [slice(0, size) for size in grid]
        for first in range(0, grid[axis], layers):
            sides[axis] = slice(first, min(first + layers, grid[axis]))
            last, target = (
                torch.from_numpy(read_box(source, pair.trajectory, frame, frame + 1, (sides[0], sides[1], sides[2])))
                for frame in (pair.start, pair.start + pair.lead)
            )
            for total, values in zip(sums, (last - target, target), strict=True):
                total += loss.squares(without_gaps(values), ()).sum(dim=CELLS, dtype=torch.float64)
            moments += torch.stack([_moments(last), _moments(target)])
        deviation = _size_and_variance(moments[0])[1].sqrt()
        error = loss.relative(sums[0], sums[1], math.prod(grid), deviation)[0] * sums[0].any()
    return torch.stack([error, *_size_and_variance(moments[1])])


def _size_and_variance(moments: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean square and variance ``(f,)`` of the moments ``(3, f)`` of a frame."""
    mean, square = moments[1:] / moments[0]
    return square, (square - mean.square()).clamp_min(0)


def _moments(frame: Tensor) -> Tensor:
    """Return the number of cells with data of a frame ``(1, f, z, y, x)``, the sum of their values and that of the squares."""
    values = without_gaps(frame[0]).double()
    return torch.stack([(~frame[0].isnan()).double(), values, values.square()]).sum(dim=CELLS)


Splits = tuple[Split, ...]
_MOST_NAMED = 3


def split_run(
    run: RunConfig, sets: Sequence[TrajectorySet], prints: Sequence[Mapping[int, str]]
) -> tuple[Splits, SplitRecord, tuple[str, ...]]:
    """Split the data sets of a run, whose fingerprints by number are ``prints``; all ranks must call.

    Returns:
        The splits; the record of them, for the run's folder; sentences about the source of the splits, if there is
        anything to say.

    Raises:
        ConfigError: the run is resumed, and its files or the settings of its split are not those that it started with.
        DataError: the data cannot be split as asked for, or the record of the split is corrupt.
    """
    path = Path(run.output.dir) / SPLIT
    before = done_by_rank_zero(lambda: split_record.read_record(path)) if run.output.resume == "auto" else None
    if before is not None:
        return done_by_rank_zero(lambda: _split_as_before(run, sets, prints, before, path))
    splits = tuple(_split(data, run, of_set) for data, of_set in zip(sets, prints, strict=True))
    return splits, done_by_rank_zero(lambda: _record(run, sets, splits, prints)), ()


def check_unseen(
    source: SplitRecord | None,
    known: frozenset[str],
    sets: Sequence[TrajectorySet],
    splits: Sequence[Split],
    pretrained: str,
) -> None:
    """Raise ConfigError if a fine-tuning run holds out data that its pretrained model was trained on.

    Args:
        source: the record of the pretraining run's split; None if it is not known.
        known: fingerprints of the data that the model was trained on; without any and without a record, every run passes.
        sets: the data sets of the fine-tuning run.
        splits: the splits of these data sets.
        pretrained: the folder of the model.
    """
    seen = []
    for data, split in zip(sets, splits, strict=True):
        numbers = split_record.trained_on(data, (*split.valid, *split.test), known, source, shared_out)
        seen += [data.trajectories[number].label for number in numbers]
    if seen:
        advice = "Take other data"
        if source is not None:
            how = f"data.split {list(source.settings.split)}, data.split_seed {source.settings.split_seed}, the same files"
            advice = f"Split as it did ({how})"
        raise ConfigError(
            f"{pretrained} was trained on {len(seen)} of the trajectories that this run holds out, such as {seen[0]}: its "
            f"errors on them would be too small. {advice}, or set finetune.allow_seen to true."
        )


def _split_as_before(
    run: RunConfig, sets: Sequence[TrajectorySet], prints: Sequence[Mapping[int, str]], before: SplitRecord, path: Path
) -> tuple[Splits, SplitRecord, tuple[str, ...]]:
    """Split as a record says, with trajectories of new names held out that begin like what was held out; see `split_run`."""
    for key in ("split", "split_seed", "trajectories"):
        then, asked = getattr(before.settings, key), getattr(run.data, key)
        if then != asked:
            raise ConfigError(
                f"{path} says that the run was split with data.{key} = {then}, this one asks for {asked}; use the same, or "
                "another output.dir."
            )
    parts, notes = split_record.RecordedParts(before), []
    splits = tuple(split_record.split_as_recorded(parts, data, index) for index, data in enumerate(sets))
    now = _record(run, sets, splits, prints)
    if changes := before.changes(now):
        if run.data.changed == "refuse" or parts.are_cut or any(each.split_by == "time" for each in run.data.sets):
            raise ConfigError(
                f"The files are not those that {path} says were split: {changes}. Restore them, and split_by; or, where "
                "nothing is cut in time, set data.changed to 'keep': what was held out stays held out, and new files are "
                "trained on."
            )
        notes.append(f"Changed since the run was split: {changes}.")
    held = [parts.held_out_before(data, index, prints[index]) for index, data in enumerate(sets)]
    if labels := [data.trajectories[number].label for data, own in zip(sets, held, strict=True) for number in own]:
        splits = tuple(split.with_moved(own) for split, own in zip(splits, held, strict=True))
        now = _record(run, sets, splits, prints)
        notes.append(f"Held out, since they begin like what was held out before: {listed(labels, _MOST_NAMED)}.")
    return splits, now.with_what_went(before), tuple(notes)


def _record(
    run: RunConfig, sets: Sequence[TrajectorySet], splits: Sequence[Split], prints: Sequence[Mapping[int, str]]
) -> SplitRecord:
    return split_record.record_split(sets, splits, prints, run.data.split, run.data.split_seed, run.data.trajectories)


def _split(data: TrajectorySet, run: RunConfig, prints: Mapping[int, str]) -> Split:
    """Split the trajectories of a data set; an error names the data set."""
    try:
        return split_set(data, run.data.split, run.data.split_seed, run.data.trajectories, prints=prints)
    except DataError as error:
        raise DataError(f"{data.sources[0]}: {error}") from None


def write_split(folder: Path, data: RunData) -> list[str]:
    """Record the trajectories of each part of the data, for later runs; return notes on duplicates among those held out."""
    seen, refusal = folder / SEEN, None
    if rank() == 0:
        try:  # data that a resumed run was trained on before still counts
            now = split_record.seen_text(data.prints, [split.train for split in data.splits]).split()
            replace_text(seen, "".join(f"{text}\n" for text in sorted({*now, *split_record.read_seen(seen)})))
            replace_text(folder / SPLIT, data.record.text())
        except OSError as error:
            refusal = ConfigError(cannot_write(folder, error))
    if refusal := from_rank_zero(refusal):
        raise refusal
    known = from_rank_zero(split_record.read_seen(seen))
    held_out = [(*split.valid, *split.test) for split in data.splits]
    held_out += [tuple(range(source.num_trajectories)) for source in data.others]
    prints = [*data.prints, *(fingerprints(each, range(each.num_trajectories), shared_out) for each in data.others)]
    parts = zip(data.all_sets, held_out, prints, strict=True)
    notes = [split_record.twins_note(source, numbers, known, of_set) for source, numbers, of_set in parts]
    return [note for note in notes if note]


MOST_WINDOWS, FEWEST_WINDOWS = 1000, 200
"""Numbers of windows of a set; too few would miss the first frames of trajectories, where fields often change most."""
MOST_VALUES = 2**30
"""Number of values of a set that are read at most; if the fewest windows hold more, the set's fields have no range."""
MARGIN = 0.1
"""Fraction by which a range is widened on each side."""


def seen_scales(run: RunConfig, data: RunData, before: Ranges | None) -> dict[str, list[list[float]]]:
    """Return the ranges of scales in the training data, united with the ranges ``before`` of a pretrained model.

    They are ranges over histories that are spread over the training data; given fields have none. The ranks share the reading,
    and all must call.
    """
    history, windows, sets = run.data.history, list[Window](), data.mixture.sets
    for index, (source, train) in enumerate(zip(sets, data.mixture.train, strict=True)):
        largest = max(math.prod(source.trajectories[trajectory].grid) for trajectory in train)
        count = min(MOST_WINDOWS, MOST_VALUES // ((history + 1) * len(source.fields) * largest))
        if count >= FEWEST_WINDOWS:
            windows += spread_windows(source, train, history, 1, count, set_index=index)
    if run.data.bad_values == "skip":
        windows = sound_windows(sets, windows, history, shared_out)
    with on_one_thread():
        found = shared_out(partial(_ranges, sets, history), windows)
    return united([before or {}, widened(united(found), MARGIN)])


def seen_spacings(data: RunData, before: Ranges | None) -> dict[str, list[list[float]]]:
    """Return the ranges of time steps and spacings in the training data, views included, united with those ``before``."""
    mixture, found = data.mixture, list[Ranges]()
    for source, train in zip(mixture.sets, mixture.train, strict=True):
        system, _, _ = source.system.partition(",")  # that of a view, too
        each = ([about.time_step, *about.spacing] for about in (source.trajectories[index] for index in train))
        found += [{system: [numbers, numbers]} for numbers in each]
    return united([before or {}, *found])


def _ranges(sets: Sequence[TrajectorySet], history: int, window: Window) -> Ranges:
    (batch,) = read_windows(sets, [window], history)
    return ranges_of(normalisation_of(batch.history).scales(), batch.fields)
