"""Guesses whether a file, or an array in it, is a snapshot: without time, beside others that differ in a number or date."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from matey.config.description import Axis
from matey.data.arrays.stored import FileKind, StoredArray
from matey.data.axis_names import COMPONENTS, GRID, MOST_COMPONENTS, role_of
from matey.data.guessed_axes import on_our_grid
from matey.data.guessed_fields import plain_name
from matey.data.numbered import date_pattern, place_of_last, seconds_of
from matey.data.remote.paths import RemotePath, matches, place, seen_from, within
from matey.data.trajectories import DataError

_CLOCKS = (
    "_%H:%M:%S _%H-%M-%S _%H_%M_%S T%H:%M:%S T%H%M%SZ T%H%M%S _%H%M%S _%H:%M _%H-%M _%H%M _%H T%H %H%M%S %H".split()
)
_DATE_FORMS = [day + clock for clock in (*_CLOCKS, "") for day in ("%Y-%m-%d", "%Y_%m_%d", "%Y%m%d")]
_TIMES = ("time", "times", "t", "sim_time")
_OF_BLOCKS = {"Athena++": {"LogicalLocations", "Levels"}, "FLASH": {"bounding box", "refine level"}}
_LEAST = 3  # fewer files or arrays are not taken for snapshots


@dataclass(frozen=True)
class Snapshots:
    """Files, or arrays of a file, that may be snapshots.

    Attributes:
        file: path of the file, as the description names it.
        files: glob of all files whose names differ from this one in the last number or date, in sibling folders too.
        count: number of these files or of alike arrays in the file; 1 where there are too few.
        what: noun for the things counted, for a message.
    """

    file: str
    files: str
    count: int
    what: str

    @classmethod
    def around(cls, path: Path, beside: Path, arrays: Sequence[str]) -> Snapshots:
        """Return likely snapshots: alike ``arrays`` in a file, or files like it, with paths from the folder ``beside``."""
        own = seen_from(beside, path)
        if len(arrays) >= _LEAST:
            return cls(own, own, len(arrays), "arrays of each kind")
        alike, folder = glob_of(path.stem) + path.suffix, seen_from(beside, path.parent)
        if _num_matches(path.with_name(alike)) < _LEAST:
            return cls(own, own, 1, "")
        patterns = [f"{folder}/{alike}".removeprefix("./")]
        head, _, last = folder.rpartition("/")
        if not folder.startswith(".") and not head.endswith(":/"):  # neither above the description nor a host
            patterns.append("/".join(filter(None, (head, glob_of(last), alike))))
        found = {pattern: _num_matches(within(beside, pattern)) for pattern in patterns}
        best = max(found, key=lambda pattern: found[pattern])
        return cls(own, best, found[best], f"files {best}")

    def said_of(self, known: Sequence[Axis], field: StoredArray) -> str:
        """Return a note on the snapshots, empty where an array has many times; ``known`` holds the axes, if they are known."""
        if self.count < 2 or ("time" in known and (self.files == self.file or field.shape[known.index("time")] > 1)):
            return ""
        if not known:
            return f"{self.count} {self.what} differ in a number or date: where each is one snapshot, leave time out of axes."
        return f"{self.count} {self.what} differ in a number or date: each is taken for one snapshot."

    def time(self, kind: FileKind, path: Path, arrays: Mapping[str, StoredArray], field: str, name: str) -> object:
        """Return the source of the snapshots' times as a description writes it; None where it is not found.

        Args:
            kind: kind of the file.
            path: the file.
            arrays: arrays of the file.
            field: path of the array of a field, with ``*`` for the snapshot where there are several in the file.
            name: path of one of these arrays.
        """
        for array, stored in arrays.items():
            if plain_name(array).lower() in _TIMES and stored.shape in ((), (1,), (self.count,)):
                return array
        depth = next((number for number, part in enumerate(field.split("/"), start=1) if "*" in part), 0)
        group = "/".join(name.split("/")[:depth])
        attributes = kind.numbers(path, "") | (kind.numbers(path, group) if group else {})
        held = next(({"attribute": key} for key in attributes if key.lower() in _TIMES), None)
        form = date_form(path.stem) if self.files != self.file else None
        return held or (form and {"date_in_name": form})


def said_of_others(file: str, files: str, beside: Path) -> str:
    """Return a note on files whose paths differ from ``file`` in numbers only, if ``files`` leaves out some of them."""
    if isinstance(place(file), RemotePath):  # its numbers may belong to a host or port
        return ""
    stem = re.sub(r"\.[a-z]+\d?$", "", file)  # the number in a suffix such as .h5 does not count
    alike = re.sub(r"\d+(?:\.\d+)*", "*", stem) + file[len(stem) :]
    num_alike, num_taken = _num_matches(within(beside, alike)), _num_matches(within(beside, files))
    if num_alike <= max(1, num_taken):
        return ""
    return (
        f"{num_alike} files are named like this one but for numbers, and files takes {num_taken} of them: write {alike} there "
        "to take all. Each is a trajectory then; where they follow each other in time, add concat: time."
    )


def _num_matches(pattern: Path) -> int:
    try:
        return len(matches(pattern))
    except DataError:  # a server that lists nothing
        return 0


def glob_of(name: str) -> str:
    """Return a name with ``*`` for its last number, or for a date at its end."""
    form = date_form(name)
    if form:
        return re.sub(rf"{date_pattern(form)}(?=\D*$)", "*", name)
    start, end = place_of_last(name) or (len(name), len(name))
    return f"{name[:start]}*{name[end:]}" if start < end else name


def date_form(name: str) -> str | None:
    """Return the form of the date at the end of a name, None where there is none.

    >>> date_form("out_d01_2020-01-31_18:00")
    '%Y-%m-%d_%H:%M'
    """
    found = ((form, re.search(rf"{date_pattern(form)}(?=\D*$)", name)) for form in _DATE_FORMS)
    dates = (form for form, match in found if match and match[0][:2] in ("19", "20") and seconds_of([match[0]], form))
    return next(dates, None)


def in_groups(arrays: Mapping[str, StoredArray]) -> dict[str, list[str]]:
    """Return the names of arrays by a pattern, with ``*`` for groups with equal members or names that differ in a number."""
    depths = range(max((name.count("/") for name in arrays), default=-1) + 1)
    for by_number, depth in product((True, False), depths):
        if not by_number and _are_components(arrays, depth):
            continue
        found: dict[str, list[str]] = {}
        for name in arrays:
            parts = name.split("/")
            if by_number and len(parts) > depth:
                parts[depth] = glob_of(parts[depth])
            elif len(parts) > depth + 1:
                parts[depth] = "*"
            found.setdefault("/".join(parts), []).append(name)
        ends = any(pattern.count("/") == depth and "*" in pattern for pattern in found)  # * is an array, no group
        if by_number:  # a few numbered arrays beside them are components, or coordinates
            least = MOST_COMPONENTS if ends else 1
            few = [name for names in found.values() if len(names) <= least for name in names]
            found = {pattern: names for pattern, names in found.items() if len(names) > least} | {n: [n] for n in few}
        counts = {len(names) for pattern, names in found.items() if "*" in pattern}
        if len(counts) == 1 and max(counts) > (MOST_COMPONENTS if ends else 1):
            return {pattern: names for pattern, names in sorted(found.items(), key=lambda item: item[1][0])}
    return {name: [name] for name in arrays}


def _are_components(arrays: Mapping[str, StoredArray], depth: int) -> bool:
    """Whether groups are vectors, whose members have names of axes as in ``E/x``, and not trajectories."""
    members = {name.split("/", depth + 1)[-1] for name in arrays if name.count("/") > depth}
    return bool(members) and members <= {*COMPONENTS}


def said_of_blocks(arrays: Collection[str]) -> str:
    """Return advice on arrays that hold the blocks of a mesh beside each other; empty for other arrays."""
    program = next((program for program, names in _OF_BLOCKS.items() if names <= {*arrays}), None)
    if program is None:
        return ""
    return (
        f"blocks of a mesh of {program} lie beside each other in each array; put every snapshot on one grid first, with yt: "
        "ds = yt.load(FILE), grid = ds.covering_grid(0, ds.domain_left_edge, ds.domain_dimensions), "
        "numpy.save('density_0000.npy', grid['gas', 'density'].v)."
    )


def in_numbered_files(arrays: Mapping[str, StoredArray], stem: str) -> dict[str, list[str]] | None:
    """Return arrays by name, with ``*`` for the group that has the number of the file: ``data/50/u`` in ``sim_0050.h5``.

    The result is None where there is no such group, or where other groups differ from it in the number only.
    """
    number, groups = _count_in(stem), ((name.split("/"), depth) for name in arrays for depth in range(name.count("/")))
    own = next((parts[: depth + 1] for parts, depth in groups if _count_in(parts[depth]) == number), None)
    if own is None or number is None:
        return None
    head, wild = "/".join(own) + "/", "/".join([*own[:-1], glob_of(own[-1])]) + "/"
    found = {wild + name.removeprefix(head) if name.startswith(head) else name: [name] for name in arrays}
    alike = re.compile(re.escape(wild).replace(r"\*", "[^/]*"))
    return found if all(name.startswith(head) or not alike.match(name) for name in arrays) else None


def _count_in(name: str) -> int | None:
    """Return the last number of a name, None where it has none or a fraction."""
    text = name[slice(*place_of_last(name) or (0, 0))]
    return int(text) if text.isdecimal() else None


def snapshot_axes(stored: StoredArray, coordinates: Mapping[str, int]) -> list[Axis] | None:
    """Return the axes of an array of one snapshot, None where neither names nor coordinates of their lengths tell them."""
    names = (
        {size: name for name, size in coordinates.items()} if len({*coordinates.values()}) == len(coordinates) else {}
    )
    roles = [role_of(name or "") for name in (stored.axes or [names.get(size) for size in stored.shape])]
    known = on_our_grid([role for role in roles if role is not None])
    return known if known and len({*known}) == len(roles) and "time" not in known else None


def of_one_snapshot(shape: Sequence[int]) -> str:
    """Return the usual axes of a snapshot's array of this shape, for a comment."""
    axes = [*GRID, "component"][max(0, 3 - len(shape)) : max(3, len(shape))]
    return f", or of one snapshot [{', '.join(axes)}]"
