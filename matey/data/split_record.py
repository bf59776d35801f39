"""Records the part of each trajectory in a run's folder, so that held-out data stays held out.

A split by permutation depends on which files are there, and one more file moves most trajectories to another part. The record
is text, one JSON object a line: first the settings of the split and the folder of each data set, then each file with the names
of its trajectories by part.

A file is recognised by its path; where a data set was moved as a whole, by its path inside the set's folder. It counts as
changed if its size differs, or the names, shapes, time steps or value fingerprints of its trajectories do
(`matey.data.split_record`).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from matey.data.remote import RemotePath
from matey.data.splits import Share, Split, alone, fingerprints
from matey.data.trajectories import PARTS, DataError, Trajectory, TrajectorySet
from matey.data.views import Span, TimeBlocks
from matey.mistakes import listed, regular

_MAX_NAMED = 3
KINDS = ("came", "gone", "changed", "with other values")
"""The kinds of changes of files."""
_GONE = ""  # content of a missing file, which stays in the record in case it comes back


class SplitSettings(BaseModel):
    """The first line: the settings of the split, see `matey.config.DataSection`, and the folder of each data set."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    split: tuple[float, float, float]
    split_seed: int
    trajectories: int | None
    folders: tuple[str, ...]


@dataclass(frozen=True)
class FileParts:
    """A file and the part of each of its trajectories.

    Attributes:
        num_bytes: size of the file.
        content: hash of the names, shapes and time steps of its trajectories.
        parts: name of each trajectory mapped to ``train``, ``valid``, ``test`` or ``unused``.
        prints: fingerprints of all or some of its trajectories, by name of the trajectory.
    """

    num_bytes: int
    content: str
    parts: dict[str, str] = field(default_factory=dict)
    prints: dict[str, str] = field(default_factory=dict)

    def is_as(self, other: FileParts) -> bool:
        """Return whether both describe the same trajectories, whatever their parts and values."""
        return (self.num_bytes, self.content) == (other.num_bytes, other.content)

    def spans_of(self, span: Span) -> list[tuple[Span, str]]:
        """Return the recorded frames of a span's trajectory, whole or in blocks, each with its part."""
        return self._spans.get(span.trajectory, [])

    @cached_property
    def _spans(self) -> dict[str, list[tuple[Span, str]]]:
        found: dict[str, list[tuple[Span, str]]] = {}
        for name, part in self.parts.items():
            found.setdefault((own := Span.named(name)).trajectory, []).append((own, part))
        return found

    def has_values_of(self, other: FileParts) -> bool:
        """Return whether the fingerprints that both have are the same."""
        return all(self.prints[name] == other.prints[name] for name in self.prints.keys() & other.prints.keys())


@dataclass(frozen=True)
class SplitRecord:
    """The parts of all data sets of a run.

    Attributes:
        settings: the settings of the run that made the split.
        sets: entries of the files of each data set, by path inside the set's folder.
    """

    settings: SplitSettings
    sets: tuple[dict[str, FileParts], ...]

    def text(self) -> str:
        """Return the lines that `read_record` reads."""
        lines = [self.settings.model_dump_json()]
        for index, files in enumerate(self.sets):
            for label, file in files.items():
                named: dict[str, list[str]] = {}
                for name, part in file.parts.items():
                    named.setdefault(part, []).append(name)
                about = {"set": index, "file": label, "bytes": file.num_bytes}
                lines.append(json.dumps(about | {"content": file.content, "prints": file.prints} | named))
        return "\n".join(lines) + "\n"

    def by_path(self, index: int) -> dict[str, FileParts]:
        """Return the files of a data set by their full paths."""
        folder = self.settings.folders[index]
        return {os.path.normpath(f"{folder}/{label}"): file for label, file in self.sets[index].items()}

    def changes(self, now: SplitRecord, told: Sequence[str] = KINDS) -> str:
        """Say which files came, went and changed, as far as these kinds of changes are ``told``; empty where none did."""
        said = []
        for index in range(max(len(self.sets), len(now.sets))):
            before, after = with_common_names(self, now, index)
            there = {name for name, file in before.items() if file.content != _GONE}
            alike = {name for name in there & after.keys() if before[name].is_as(after[name])}
            kinds = {
                "came": after.keys() - there,
                "gone": there - after.keys(),
                "changed": (there & after.keys()) - alike,
                "with other values": {name for name in alike if not before[name].has_values_of(after[name])},
            }
            found = [f"{kind}: {listed(sorted(kinds[kind]), _MAX_NAMED)}" for kind in told if kinds[kind]]
            if found:
                folder = (now if index < len(now.sets) else self).settings.folders[index]
                said.append(f"data set {index + 1} ({folder}) {', '.join(found)}")
        return "; ".join(said)

    def lost(self, sets: Sequence[TrajectorySet], part: str) -> str:
        """Say which files with trajectories of a part are missing from the data sets or have changed; empty if none."""
        held = [{label: file for label, file in files.items() if part in file.parts.values()} for files in self.sets]
        settings = self.settings.model_copy(update={"folders": tuple(folder_of(data) for data in sets)})
        now = SplitRecord(settings, tuple(described_files(data) for data in sets))
        return replace(self, sets=tuple(held)).changes(now, ("gone", "changed"))

    def with_what_went(self, before: SplitRecord) -> SplitRecord:
        """Return this record with the files that only an earlier one names, so that they keep their part if they come back."""
        sets = [dict(files) for files in self.sets]
        for index in range(min(len(sets), len(before.sets))):
            known, present = with_common_names(before, self, index)
            for name, file in known.items():
                label = os.path.relpath(name, self.settings.folders[index]) if os.path.isabs(name) else name
                now = present.get(name, replace(file, content=_GONE))
                sets[index][label] = replace(now, parts=file.parts | now.parts)
        return replace(self, sets=tuple(sets))


def record_split(
    sets: Sequence[TrajectorySet],
    splits: Sequence[Split],
    prints: Sequence[Mapping[int, str]],
    fractions: Sequence[float],
    seed: int,
    num_train: int | None,
) -> SplitRecord:
    """Return the record of the files and trajectories in each part; ``prints`` are the fingerprints of each set by number."""
    settings = SplitSettings(
        split=tuple(fractions),
        split_seed=seed,
        trajectories=num_train,
        folders=tuple(folder_of(data) for data in sets),
    )
    files = []
    for data, split, of_set in zip(sets, splits, prints, strict=True):
        part_of = {number: part for part in PARTS for number in getattr(split, part)}
        labels, described = labels_of(data), described_files(data)
        for number, about in enumerate(data.trajectories):
            file = described[labels[about.source]]
            file.parts[about.name] = part_of.get(number, "unused")
            if number in of_set:
                file.prints[about.name] = of_set[number]
        files.append(described)
    return SplitRecord(settings, tuple(files))


def read_record(path: Path) -> SplitRecord | None:
    """Read a record; None if there is none, as in the folder of a run that has yet to begin.

    Raises:
        DataError: the record is corrupt or cannot be read.
    """
    try:
        first, *lines = regular(path).read_text(encoding="utf-8").splitlines()
        settings = SplitSettings.model_validate_json(first)
        sets: tuple[dict[str, FileParts], ...] = tuple({} for _ in settings.folders)
        for text in lines:
            line = json.loads(text)
            known = sets[line["set"]]
            parts = {name: part for part in (*PARTS, "unused") for name in line.get(part, ())}
            known[line["file"]] = FileParts(line["bytes"], line["content"], parts, line.get("prints", {}))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror}); it says what the run held out: make it readable."
        ) from None
    except (ValueError, LookupError, TypeError):
        raise DataError(
            f"{path} says what the run held out, and is corrupt; restore it, or remove it to split the files that are there "
            "now anew; trajectories that were trained on may then be held out."
        ) from None
    return SplitRecord(settings, sets)


def described_files(data: TrajectorySet) -> dict[str, FileParts]:
    """Return size and content of each file of a set, by its label in a record, without parts."""
    labels = labels_of(data)
    found: dict[str, FileParts] = {}
    for source, numbers in by_file(data).items():
        digest = hashlib.sha256(repr((data.system, data.fields)).encode())
        for about in (data.trajectories[number] for number in numbers):
            digest.update(repr((about.name, about.num_frames, about.grid, about.time_step)).encode())
        try:
            size = 0 if source.is_dir() else source.stat().st_size  # a folder's size says nothing of a store
        except OSError as error:
            raise DataError(f"{source} cannot be read ({error.strerror}); it may have been moved.") from None
        found[labels[source]] = FileParts(size, digest.hexdigest()[:16])
    return found


def folder_of(data: TrajectorySet) -> str:
    """Return the folder that holds all files of a set, links followed; a remote one has one slash less, as all paths here."""
    common = _common(data)
    return common if isinstance(data.sources[0], RemotePath) else os.path.realpath(common)


def labels_of(data: TrajectorySet) -> dict[Path, str]:
    """Return the label of each file in a record: its path inside the folder of its set."""
    common = _common(data)
    return {source: os.path.relpath(source, common) for source in by_file(data)}


def by_file(data: TrajectorySet) -> dict[Path, list[int]]:
    """Return the numbers of the trajectories of each file; a trajectory in several files counts by the first."""
    numbers: dict[Path, list[int]] = {}
    for number, about in enumerate(data.trajectories):
        numbers.setdefault(about.source, []).append(number)
    return numbers


def _common(data: TrajectorySet) -> str:
    return os.path.commonpath([os.path.dirname(source) for source in by_file(data)])


def with_common_names(
    before: SplitRecord, now: SplitRecord, index: int
) -> tuple[dict[str, FileParts], dict[str, FileParts]]:
    """Return the files of a data set in two records, by full paths or, if none is in both, by paths inside its folder."""
    known, present = ({} if index >= len(each.sets) else each.by_path(index) for each in (before, now))
    if known and present and not known.keys() & present.keys():
        return before.sets[index], now.sets[index]
    return known, present


class RecordedParts:
    """Looks up the parts of trajectories in a record.

    Attributes:
        are_cut: whether trajectories were cut in time.
    """

    def __init__(self, record: SplitRecord) -> None:
        self._by_path = [record.by_path(index) for index in range(len(record.sets))]
        self._by_label = record.sets
        self._files = [file for files in record.sets for file in files.values()]
        self.are_cut = any(Span.named(name).is_block for file in self._files for name in file.parts)

    def parts_of(self, data: TrajectorySet, index: int | None = None) -> list[str | None]:
        """Return the part of each trajectory of a data set, None for one that the record does not know.

        Args:
            data: the data set.
            index: number of the recorded data set that is searched first.
        """
        return [None if file is None else file.parts.get(about.name) for about, file in self._files_of(data, index)]

    def held_out_before(self, data: TrajectorySet, index: int, prints: Mapping[int, str]) -> dict[int, str]:
        """Return the part of each unknown trajectory that begins like one that was held out, as in a file that was renamed.

        Args:
            data: the data set.
            index: number of the recorded data set that is searched first.
            prints: fingerprints of trajectories by their numbers.
        """
        held: dict[str, str] = {}
        for part in ("unused", "valid", "test"):  # the last counts, where several begin alike
            held |= {
                text: part for file in self._files for name, text in file.prints.items() if file.parts.get(name) == part
            }
        parts, stated = self.parts_of(data, index), [about.split for about in data.trajectories]
        unknown = (number for number in prints if parts[number] is None and stated[number] is None)
        return {number: held[prints[number]] for number in unknown if prints[number] in held}

    def trained(self, data: TrajectorySet) -> list[bool | None]:
        """Return whether frames of each trajectory or block were trained on, None where the record does not know its file."""
        return [
            None if file is None else any(part == "train" and span.meets(own) for span, part in file.spans_of(own))
            for about, file in self._files_of(data)
            for own in [Span.named(about.name)]
        ]

    def cut_as_then(self, data: TrajectorySet, fractions: Sequence[float]) -> TrajectorySet:
        """Return a data set cut in time if the record has it cut, else as it is.

        A trajectory that may have more frames by now is cut as before, and one that was moved by the ``fractions`` of the run.
        """
        is_open = not isinstance(data, TimeBlocks) and not any(about.split for about in data.trajectories)
        if not is_open or any(self.parts_of(data)) or not self.are_cut:
            return data
        found = [[] if file is None else file.spans_of(Span(about.name)) for about, file in self._files_of(data)]
        cuts = [[(own, None) for own, _ in sorted(spans, key=lambda pair: pair[0].first)] for spans in found]
        lengths = [about.num_frames for about in data.trajectories]
        if any(own.last >= length for spans, length in zip(cuts, lengths, strict=True) for own, _ in spans):
            return data
        cut = TimeBlocks(data, cuts) if any(cuts) else TimeBlocks.by_shares(data, fractions)
        return cut if any(self.parts_of(cut)) else data

    def _files_of(self, data: TrajectorySet, index: int | None = None) -> Iterator[tuple[Trajectory, FileParts | None]]:
        """Yield each trajectory of a data set with the recorded entry of its file, None where there is none."""
        folder, labels, described = folder_of(data), labels_of(data), described_files(data)
        order = sorted(range(len(self._by_path)), key=lambda number: number != index)
        files = {source: self._find(folder, label, described[label], order) for source, label in labels.items()}
        yield from ((about, files[about.source]) for about in data.trajectories)

    def _find(self, folder: str, label: str, described: FileParts, order: Sequence[int]) -> FileParts | None:
        for number in order:
            if file := self._by_path[number].get(f"{folder}/{label}"):
                return file
        for number in order:
            file = self._by_label[number].get(label)
            if file is not None and file.is_as(described):
                return file
        return None


def split_as_recorded(parts: RecordedParts, data: TrajectorySet, index: int) -> Split:
    """Split a data set as recorded; an unknown trajectory goes to the part that its file states, or is trained on."""
    found: dict[str, list[int]] = {"train": [], "valid": [], "test": [], "unused": []}
    for number, (part, trajectory) in enumerate(zip(parts.parts_of(data, index), data.trajectories, strict=True)):
        found[part or trajectory.split or "train"].append(number)
    return Split(*(tuple(found[part]) for part in PARTS))


def trained_on(
    data: TrajectorySet,
    numbers: Sequence[int],
    seen: frozenset[str],
    record: SplitRecord | None,
    share: Share = alone,
) -> list[int]:
    """Return which trajectories of a set a run was trained on, as far as that is known.

    Of a trajectory that is cut in time, these are the blocks with frames that were trained on according to the record, or all
    blocks where the record does not know the trajectory.

    Args:
        data: the set.
        numbers: numbers of the trajectories to check.
        seen: the run's fingerprints; without any, the record alone decides, and takes files of the same place, names and sizes
            for the same.
        record: the record of the run's split; None where there is none.
        share: see `fingerprints`.

    Raises:
        DataError: a file is gone or corrupt.
    """
    known = fingerprints(data, numbers, share) if seen else {}
    found = {number for number, text in known.items() if text in seen}
    begun = _begun(data, numbers, seen, share) if seen and isinstance(data, TimeBlocks) else []
    recorded: list[bool | None] = [None] * data.num_trajectories
    if record is not None and (found or begun or not seen):
        recorded = RecordedParts(record).trained(data)
    found |= {number for number in numbers if recorded[number]}
    return sorted(found.union(number for number in begun if recorded[number] is None))


def _begun(data: TimeBlocks, numbers: Sequence[int], seen: frozenset[str], share: Share) -> list[int]:
    """Return the blocks of trajectories whose first frames were trained on; how many frames, fingerprints do not tell."""
    wholes = sorted({data.wholes[number] for number in numbers})
    known = {whole for whole, text in fingerprints(data.whole, wholes, share).items() if text in seen}
    return [number for number in numbers if data.wholes[number] in known]


def read_seen(path: Path) -> frozenset[str]:
    """Read a run's fingerprints, one a line; none where the file is missing or cannot be read."""
    try:
        return frozenset(regular(path).read_text(encoding="ascii", errors="replace").split())
    except OSError:
        return frozenset()


def seen_text(prints: Sequence[Mapping[int, str]], trained: Sequence[Sequence[int]]) -> str:
    """Return the text that `read_seen` reads, from the fingerprints of each set by number, and the numbers trained on."""
    pairs = zip(prints, trained, strict=True)
    seen = {of_set[number] for of_set, numbers in pairs for number in numbers if number in of_set}
    return "".join(f"{text}\n" for text in sorted(seen))


def twins_note(data: TrajectorySet, held_out: Sequence[int], seen: frozenset[str], prints: Mapping[int, str]) -> str:
    """Return how many held-out trajectories begin like trained ones or like each other, as a note; empty where none does.

    Solvers that start from a few rough states make the same trajectory again and again, as the dam break does on a coarse grid.
    ``prints`` are the fingerprints of the trajectories by number.
    """
    found = [prints[number] for number in held_out if number in prints]
    said = []
    if same := sum(print_ in seen for print_ in found):
        said.append(
            f"{same} of the {len(held_out)} trajectories held out begin exactly as ones that are trained on; errors on them "
            "say little of new data."
        )
    if (different := len(set(found))) < len(found):
        said.append(
            f"different trajectories among those held out: {different} of {len(found)}; errors tell of these alone."
        )
    return " ".join(f"{data.system}: {text}" for text in said)
