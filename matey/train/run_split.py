"""Splits the data of a run as its settings say or, if the run is resumed, as it was split at its start."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from matey.checkpoints.run_files import CONFIG, SPLIT
from matey.config import ConfigError, RunConfig
from matey.data.fingerprints import fingerprints
from matey.data.recorded_parts import RecordedParts, split_as_recorded
from matey.data.recorded_values import recorded_prints, with_values
from matey.data.seen import trained_on
from matey.data.split_record import SplitRecord, read_record, record_split
from matey.data.splits import Split, split_set
from matey.data.trajectories import DataError, TrajectorySet
from matey.mistakes import listed
from matey.parallel.collectives import done_by_rank_zero, shared_out

Splits = tuple[Split, ...]
_MOST_NAMED = 3


def split_run(run: RunConfig, sets: Sequence[TrajectorySet]) -> tuple[Splits, SplitRecord, tuple[str, ...]]:
    """Split the data sets of a run; all ranks must call.

    Returns:
        The splits; the record of them, for the run's folder; sentences about the source of the splits, if there is
        anything to say.

    Raises:
        ConfigError: the run is resumed, and its files or the settings of its split are not those that it started with.
        DataError: the data cannot be split as asked for, or the record of the split is corrupt.
    """
    path = Path(run.output.dir) / SPLIT
    goes_on = run.output.resume == "auto"
    before = done_by_rank_zero(lambda: read_record(path)) if goes_on else None
    if before is not None:
        splits, now = done_by_rank_zero(lambda: _split_as_before(run, sets, before, path))
        now = with_values(now, sets, before, shared_out)
        changes = done_by_rank_zero(lambda: _changes(run, before, now, path))
        splits, now, note = done_by_rank_zero(lambda: _held_out_still(run, sets, splits, before, now))
        notes = (f"Changed since the run was split: {changes}.",) if changes else ()
        return splits, now.with_what_went(before), (*notes, *note)
    prints = [fingerprints(data, range(data.num_trajectories), shared_out) for data in sets]
    splits = tuple(_split(data, run, of_set) for data, of_set in zip(sets, prints, strict=True))
    record, is_unrecorded = done_by_rank_zero(
        lambda: (_record(run, sets, splits), goes_on and path.with_name(CONFIG).is_file())
    )
    return splits, with_values(record, sets, None, shared_out, prints), (_not_recorded(path),) if is_unrecorded else ()


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
        numbers = trained_on(data, (*split.valid, *split.test), known, source, shared_out)
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
    run: RunConfig, sets: Sequence[TrajectorySet], before: SplitRecord, path: Path
) -> tuple[Splits, SplitRecord]:
    """Split as a record says, and record the split of the present files."""
    _check_settings(run, before, path)
    parts = RecordedParts(before)
    for index, data in enumerate(sets):
        if cut := parts.cut_otherwise(data, index):
            raise _cut_otherwise(cut[0].label, cut[1], path)
    splits = tuple(split_as_recorded(parts, data, index) for index, data in enumerate(sets))
    return splits, _record(run, sets, splits)


def _held_out_still(
    run: RunConfig, sets: Sequence[TrajectorySet], splits: Splits, before: SplitRecord, now: SplitRecord
) -> tuple[Splits, SplitRecord, tuple[str, ...]]:
    """Return splits, their record and notes, with trajectories of new names held out that begin like what was held out."""
    parts, prints = RecordedParts(before), recorded_prints(now, sets)
    held = [parts.held_out_before(data, index, prints[index]) for index, data in enumerate(sets)]
    labels = [data.trajectories[number].label for data, own in zip(sets, held, strict=True) for number in own]
    if not labels:
        return splits, now, ()
    splits = tuple(split.with_moved(own) for split, own in zip(splits, held, strict=True))
    anew = _record(run, sets, splits)
    files = zip(now.sets, anew.sets, strict=True)
    record = replace(
        anew, sets=tuple({name: replace(own[name], parts=each[name].parts) for name in own} for own, each in files)
    )
    note = f"Held out, since they begin like what was held out before: {listed(labels, _MOST_NAMED)}."
    return splits, record, (note,)


def _changes(run: RunConfig, before: SplitRecord, now: SplitRecord, path: Path) -> str:
    """Return a text on the files that differ from a record; raise ConfigError if they must not differ."""
    if begun := RecordedParts(before).begun_otherwise(now):
        raise _cut_otherwise(*begun, path)
    changes = before.changes(now)
    if changes and run.data.changed == "refuse":
        raise ConfigError(
            f"The files are not those that {path} says were split: {changes}. Restore them, or set data.changed to 'keep': "
            "what was held out stays held out, and new files are trained on."
        )
    return changes


def _cut_otherwise(label: str, then: str, path: Path) -> ConfigError:
    """Return the error for a trajectory or block, named by a label, that was ``then`` when it was recorded."""
    return ConfigError(
        f"{label}: expected {then!r}, as {path} has it, since a trajectory stays cut in time as it was, or frames that were "
        "held out would be trained on; restore its frames and the set's split_by, or choose another output.dir."
    )


def _check_settings(run: RunConfig, before: SplitRecord, path: Path) -> None:
    for key in ("split", "split_seed", "trajectories"):
        then, now = getattr(before.settings, key), getattr(run.data, key)
        if then != now:
            raise ConfigError(
                f"{path} says that the run was split with data.{key} = {then}, this one asks for {now}; use the same, or "
                "another output.dir."
            )


def _not_recorded(path: Path) -> str:
    return (
        f"{path.parent} has no {path.name}, the record of how the run's data was split. It is split by the files that are "
        "there now, which are recorded from here on."
    )


def _record(run: RunConfig, sets: Sequence[TrajectorySet], splits: Sequence[Split]) -> SplitRecord:
    return record_split(sets, splits, run.data.split, run.data.split_seed, run.data.trajectories)


def _split(data: TrajectorySet, run: RunConfig, prints: Mapping[int, str]) -> Split:
    """Split the trajectories of a data set; an error names the data set."""
    try:
        return split_set(data, run.data.split, run.data.split_seed, run.data.trajectories, prints=prints)
    except DataError as error:
        raise DataError(f"{data.sources[0]}: {error}") from None
