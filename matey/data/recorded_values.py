"""Fingerprints of the values of recorded files, which reveal values that changed in a file of the same size.

`matey.data.fingerprints` takes them from the first two frames of at most 1000 trajectories or 2 GiB of a set. When a run
continues, only files with another modification time than recorded are read again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from matey.data.fingerprints import fingerprints
from matey.data.recorded_file import FileParts
from matey.data.share import Share
from matey.data.split_record import SplitRecord, labels_of, with_common_names
from matey.data.trajectories import TrajectorySet


def with_values(
    record: SplitRecord,
    sets: Sequence[TrajectorySet],
    before: SplitRecord | None,
    share: Share,
    known: Sequence[Mapping[int, str]] = (),
) -> SplitRecord:
    """Return a record with the fingerprints of its trajectories.

    Args:
        record: the record of these sets.
        sets: the data sets.
        before: an earlier record, which has the fingerprints of unchanged files.
        share: see `fingerprints`.
        known: fingerprints of trajectories by their numbers for each set, if they are known already.

    Raises:
        DataError: a file is gone or corrupt.
    """
    found = list(known) or [_read(record, data, index, before, share) for index, data in enumerate(sets)]
    filled = []
    for index, data in enumerate(sets):
        earlier = _unchanged(record, index, before)
        files = {label: replace(file, prints=earlier.get(label, {})) for label, file in record.sets[index].items()}
        labels = labels_of(data)
        for number, text in found[index].items():
            about = data.trajectories[number]
            files[labels[about.source]].prints[about.name] = text
        filled.append(files)
    return replace(record, sets=tuple(filled))


def recorded_prints(record: SplitRecord, sets: Sequence[TrajectorySet]) -> list[dict[int, str]]:
    """Return the recorded fingerprints of the trajectories of each set, by their numbers."""
    found = []
    for files, data in zip(record.sets, sets, strict=True):
        labels = labels_of(data)
        of_each = (files[labels[about.source]].prints.get(about.name) for about in data.trajectories)
        found.append({number: text for number, text in enumerate(of_each) if text})
    return found


def _read(
    record: SplitRecord, data: TrajectorySet, index: int, before: SplitRecord | None, share: Share
) -> dict[int, str]:
    """Read the fingerprints of recorded trajectories in changed files, and of all trajectories in new files."""
    unchanged, labels = _unchanged(record, index, before), labels_of(data)
    earlier = _earlier(record, index, before)
    numbers = []
    for number, about in enumerate(data.trajectories):
        label = labels[about.source]
        is_asked = label not in earlier or about.name in earlier[label].prints
        if is_asked and label not in unchanged:
            numbers.append(number)
    return fingerprints(data, numbers, share)


def _unchanged(record: SplitRecord, index: int, before: SplitRecord | None) -> dict[str, dict[str, str]]:
    """Return the recorded fingerprints of the files whose size and modification time are unchanged."""
    now, earlier = record.sets[index], _earlier(record, index, before)
    return {
        label: dict(file.prints)
        for label, file in earlier.items()
        if file.prints and file.is_as(now[label]) and file.changed == now[label].changed != 0
    }


def _earlier(record: SplitRecord, index: int, before: SplitRecord | None) -> dict[str, FileParts]:
    """Return the entries of an earlier record for the files of a set, by their names in this record."""
    if before is None:
        return {}
    there, present = with_common_names(before, record, index)
    return {label: there[name] for label, name in zip(record.sets[index], present, strict=True) if name in there}
