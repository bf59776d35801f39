"""Fingerprints of the values of recorded files, which reveal values that changed in a file of the same size.

`matey.data.fingerprints` takes them from the first two frames of at most 1000 trajectories or 2 GiB of a set. When a run
continues, only files with another modification time than recorded are read again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from matey.data.fingerprints import fingerprints
from matey.data.share import Share
from matey.data.split_record import FileParts, SplitRecord, labels_of, with_common_names
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
    filled = []
    for index, (data, now) in enumerate(zip(sets, record.sets, strict=True)):
        labels, earlier = labels_of(data), _earlier(record, index, before)
        unchanged = {label for label, file in earlier.items() if file.prints and _is_unchanged(file, now[label])}
        # Of files that changed, the trajectories with recorded fingerprints are read; of new files, all.
        asked = [
            number
            for number, about in enumerate(data.trajectories)
            if (label := labels[about.source]) not in earlier
            or (label not in unchanged and about.name in earlier[label].prints)
        ]
        found = known[index] if known else fingerprints(data, asked, share)
        kept = {label: dict(earlier[label].prints) if label in unchanged else {} for label in now}
        for number, text in found.items():
            about = data.trajectories[number]
            kept[labels[about.source]][about.name] = text
        filled.append({label: replace(file, prints=kept[label]) for label, file in now.items()})
    return replace(record, sets=tuple(filled))


def recorded_prints(record: SplitRecord, sets: Sequence[TrajectorySet]) -> list[dict[int, str]]:
    """Return the recorded fingerprints of the trajectories of each set, by their numbers."""
    found = []
    for files, data in zip(record.sets, sets, strict=True):
        labels = labels_of(data)
        of_each = (files[labels[about.source]].prints.get(about.name) for about in data.trajectories)
        found.append({number: text for number, text in enumerate(of_each) if text})
    return found


def _is_unchanged(before: FileParts, now: FileParts) -> bool:
    """Whether a file has the same trajectories, size and modification time."""
    return before.is_as(now) and before.changed == now.changed != 0


def _earlier(record: SplitRecord, index: int, before: SplitRecord | None) -> dict[str, FileParts]:
    """Return the entries of an earlier record for the files of a set, by their names in this record."""
    if before is None:
        return {}
    there, present = with_common_names(before, record, index)
    return {label: there[name] for label, name in zip(record.sets[index], present, strict=True) if name in there}
