"""Looks up the part of each trajectory in the record of a split, and so whether it was trained on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from matey.data.fingerprints import fingerprints
from matey.data.split_record import FileParts, SplitRecord, by_file, described_files, folder_of, labels_of
from matey.data.splits import Split
from matey.data.time_blocks import Span, TimeBlocks
from matey.data.trajectories import Trajectory, TrajectorySet
from matey.data.trajectory import PARTS


class RecordedParts:
    """Looks up the parts of trajectories in a record."""

    def __init__(self, record: SplitRecord) -> None:
        self._record = record
        self._by_path = [record.by_path(index) for index in range(len(record.sets))]
        self._by_label = record.sets
        self._files = [file for files in record.sets for file in files.values()]
        self._has_blocks = any(Span.named(name).is_block for file in self._files for name in file.parts)
        self._begun: dict[tuple[Path, str], FileParts | None] = {}  # results of `_begun_as`

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

        Args:
            data: the data set.
            fractions: shares of train, valid and test of the run.
        """
        has_parts = any(about.split for about in data.trajectories)
        if not self._has_blocks or isinstance(data, TimeBlocks) or has_parts or any(self.parts_of(data)):
            return data
        cuts = [self._blocks_of(about, file) for about, file in self._files_of(data)]
        # where no blocks are found, as of a file that was moved since, new cuts may be those of the record
        cut = TimeBlocks(data, fractions, cuts if any(cuts) else [])
        return cut if any(self.parts_of(cut)) else data

    def _blocks_of(self, about: Trajectory, file: FileParts | None) -> list[Span]:
        """Return the recorded blocks of a trajectory, which may have more frames by now; none if it has fewer."""
        blocks = [] if file is None else [span for span, _ in file.spans_of(Span(about.name))]
        are_there = all(span.is_block and span.last < about.num_frames for span in blocks)
        return sorted(blocks, key=lambda span: span.first) if are_there else []

    def cut_otherwise(self, data: TrajectorySet, index: int) -> tuple[Trajectory, str] | None:
        """Return a trajectory or block that the record cuts differently, and the name of a recorded block; else None."""
        for about, file in self._files_of(data, index):
            if file is not None and about.name not in file.parts:
                for span, _ in file.spans_of(Span.named(about.name)):
                    return about, span.name
        return None

    def begun_otherwise(self, now: SplitRecord) -> tuple[str, str] | None:
        """Return a trajectory of a later record that begins like recorded frames but ends elsewhere, and their name; or None.

        This recognises a simulation that was continued, in a file of any name.
        """
        known: dict[str, list[Span]] = {}
        for _, name, text in _prints(self._record):
            known.setdefault(text, []).append(Span.named(name))
        for label, name, text in _prints(now):
            spans = known.get(text, [])
            own = Span.named(name)
            if spans and all((own.first, own.last) != (span.first, span.last) for span in spans):
                return f"{label}, trajectory {name}", spans[0].name
        return None

    def _files_of(self, data: TrajectorySet, index: int | None = None) -> Iterator[tuple[Trajectory, FileParts | None]]:
        """Yield each trajectory of a data set with the recorded entry of its file, None where there is none."""
        folder, labels = folder_of(data), labels_of(data)
        order = sorted(range(len(self._by_path)), key=lambda number: number != index)
        described = described_files(data)
        files = {}
        for source, numbers in by_file(data).items():
            label = labels[source]
            file = self._find(folder, label, described[label], order)
            if file is None:
                key = (source, label)
                if key not in self._begun:  # this reads first frames
                    self._begun[key] = self._begun_as(data, numbers, label, order)
                file = self._begun[key]
            files[source] = file
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

    def _begun_as(
        self, data: TrajectorySet, numbers: Sequence[int], label: str, order: Sequence[int]
    ) -> FileParts | None:
        """Find a recorded file that was moved and has changed since, such as a continued simulation, by its beginning.

        Its path inside the folder of its data set is the same, and so are the first frames of all of its trajectories.

        Args:
            data: the data set.
            numbers: numbers of the file's trajectories.
            label: path of the file inside the folder of the data set.
            order: numbers of the recorded data sets, in the order of the search.
        """
        spans = {number: Span.named(data.trajectories[number].name) for number in numbers}
        for file in (self._by_label[number][label] for number in order if label in self._by_label[number]):
            begun = {
                span.trajectory: text for name, text in file.prints.items() if (span := Span.named(name)).first == 0
            }
            known = {
                n: begun[span.trajectory] for n, span in spans.items() if span.first == 0 and span.trajectory in begun
            }
            if known and fingerprints(data, [*known]) == known:
                return file
        return None


def _prints(record: SplitRecord) -> Iterator[tuple[str, str, str]]:
    """Yield the file of each trajectory, its name and its fingerprint."""
    for files in record.sets:
        yield from ((label, *item) for label, file in files.items() for item in file.prints.items())


def split_as_recorded(parts: RecordedParts, data: TrajectorySet, index: int) -> Split:
    """Split a data set as recorded; an unknown trajectory goes to the part that its file states, or is trained on."""
    found: dict[str, list[int]] = {"train": [], "valid": [], "test": [], "unused": []}
    for number, (part, trajectory) in enumerate(zip(parts.parts_of(data, index), data.trajectories, strict=True)):
        found[part or trajectory.split or "train"].append(number)
    return Split(*(tuple(found[part]) for part in PARTS))
