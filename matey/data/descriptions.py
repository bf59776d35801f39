"""Finds and reads descriptions of a user's own files, and opens these files."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from glob import has_magic
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from matey.config import DataDescription
from matey.config.description import ParameterSource, TimeSource, patterns_in
from matey.config.files import PlainTextError, parse_yaml, read_text
from matey.config.loading import sentences
from matey.data.arrays.kinds import gridded_files
from matey.data.described import DescribedFiles
from matey.data.located import DataFile
from matey.data.numbered import date_pattern, in_order
from matey.data.remote.paths import RemotePath, place, within, would_match
from matey.data.snapshots import own_file, trajectory_of
from matey.data.trajectories import DataError, Part, Reader, TrajectorySet

BESIDE = "matey.yaml"
"""Name of a description that is found without being named, in the folder of the data or the one above."""

_SUFFIXES = (".yaml", ".yml")


def open_description(path: Path) -> TrajectorySet:
    """Open the files of a description.

    Raises:
        DataError: the description or one of its files cannot be used.
    """
    description = read_description(path)
    return DescribedFiles(description, described_files(path, description))


def files_in(path: Path, description: DataDescription) -> list[DataFile]:
    """Return the files of a description that lies elsewhere, such as in the run YAML.

    Args:
        path: file, folder or glob; if the description names files, the folder from which their paths start.
        description: description of the files.

    Raises:
        DataError: the description names files and ``path`` is not a folder, or there are no files.
    """
    if description.files is None:
        return _each_once([*_all_of(path, str(path), description)])
    if not path.is_dir():
        raise DataError(f"{path}: expected a folder, from which the description's 'files' start; or leave 'files' out.")
    return described_files(path / BESIDE, description)


def is_description(path: Path) -> bool:
    """Whether a path is that of a description."""
    return path.suffix in _SUFFIXES and path.is_file()


def read_description(path: Path, *, is_named: bool = True) -> DataDescription:
    """Read a description, and complete the paths of its tables; one that was found names nothing on other machines.

    Raises:
        DataError: the file cannot be read, is not YAML, or has an invalid key or value; or names an address, and was not named.
    """
    try:
        tree: Any = parse_yaml(read_text(path))
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}).") from None
    except PlainTextError as error:
        raise DataError(f"{path} {error}.") from None
    description = description_of(tree, str(path))
    if not is_named and (far := [name for name in _paths_in(description) if isinstance(place(name), RemotePath)]):
        raise DataError(
            f"{path} was found beside data, and would have {far[0]} fetched; give the description itself as the path if you "
            "trust it."
        )
    return with_tables_in(path.parent, description)


def _paths_in(description: DataDescription) -> Iterator[str]:
    """Yield all paths and patterns of files that a description names."""
    yield from (*patterns_in(description.files), *description.tables)
    for source in (*description.fields.values(), *description.given.values()):
        yield from source.file.values() if isinstance(source.file, dict) else filter(None, [source.file])


def description_of(tree: object, label: str) -> DataDescription:
    """Return the description in a tree that was parsed from YAML; ``label`` names it in errors.

    Raises:
        DataError: a key or value is invalid.
    """
    try:
        return DataDescription.model_validate(tree)
    except ValidationError as error:
        found = sentences(error, DataDescription)
        raise DataError(f"{label}: {found}{'' if found.endswith(('?', '.')) else '.'}") from None


def with_tables_in(folder: Path, description: DataDescription) -> DataDescription:
    """Return a description with complete paths of its tables of parameters, which start from ``folder``."""
    if not description.tables:
        return description
    whole = {
        name: source.model_copy(update={"table": str(within(folder, source.table))})
        if isinstance(source, ParameterSource) and source.table is not None
        else source
        for name, source in description.parameters.items()
    }
    return description.model_copy(update={"parameters": whole})


def described_files(path: Path, description: DataDescription) -> list[DataFile]:
    """Return the files of a description that lies at ``path``.

    Raises:
        DataError: a pattern has no match, or a file is in two parts or occurs twice.
    """
    if not isinstance(description.files, dict):
        return _each_once([*_all_of(path, description.files, description)])
    known: dict[Path, Part] = {}
    found: list[DataFile] = []
    for part, patterns in description.files.items():
        for each in _all_of(path, patterns, description, part):
            for file in each.paths:
                if known.setdefault(file, part) != part:
                    raise DataError(f"{path}: {file} is in {known[file]} and in {part}; correct 'files'.")
            found.append(each)
    return _each_once(found)


def would_describe(path: Path, file: Path) -> bool:
    """Whether the description at ``path`` would cover a future file; an invalid description covers none."""
    try:
        files = read_description(path).files
    except DataError:
        return False
    listed = patterns_in(files) or ["."]
    return any(would_match(Path(os.path.abspath(within(path.parent, one))), file) for one in listed)


def description_beside(file: Path) -> Path | None:
    """Return the description that may cover a file: ``matey.yaml`` in its folder, or in the one above."""
    if file.suffix in _SUFFIXES:
        return None
    return next((path for path in (file.parent / BESIDE, file.parent.parent / BESIDE) if path.is_file()), None)


def _each_once(files: list[DataFile]) -> list[DataFile]:
    """Return the files; raise DataError if one occurs twice under different names, since held-out data would be trained on."""
    known: dict[tuple[int, int], Path] = {}
    for file in (path for each in files for path in each.paths):
        about = file.stat()
        before = known.setdefault((about.st_dev, about.st_ino), file)
        if before != file:
            raise DataError(
                f"{file} and {before} are the same file; name it once, or one part trains on what another holds out."
            )
    return files


def _all_of(
    path: Path, patterns: str | tuple[str, ...] | None, description: DataDescription, part: Part | None = None
) -> Iterator[DataFile]:
    """Yield the files that patterns match, each once, and the files of a trajectory together."""
    if patterns is None and not gridded_files(path.parent):
        raise DataError(f"{path}: there is no data in its folder; put it there, or say in 'files' where it lies.")
    step = description.time_step
    dates = step.date_in_name if isinstance(step, TimeSource) else None
    in_several = description.snapshots == "files" or description.concat is not None
    known: dict[Path, Path] = {}  # the pattern of each file
    together: dict[str, list[Path]] = {}
    for pattern in patterns_in(patterns) or ["."]:
        whole = within(path.parent, pattern)
        found = gridded_files(whole)
        if not found:
            remedy = "correct 'files', which start from the description's folder"
            if has_magic(str(path.parent)):
                remedy = "the folder's name has one of *?[, which stand for other names in 'files': rename the folder"
            raise DataError(f"{path}: no file matches {pattern!r}; {remedy}.")
        for file in found:
            if file in known:
                continue
            known[file] = whole
            apart = re.sub(f"(.*){date_pattern(dates)}", r"\1*", str(file)) if dates else trajectory_of(file, whole)
            together.setdefault(apart if in_several else str(file), []).append(file)
    own = {
        name: source.file if isinstance(source.file, str) else source.file.get(part or "train", "")
        for name, source in (*description.fields.items(), *description.given.items())
        if source.file is not None
    }
    if missing := [name for name, file in own.items() if not file]:
        raise DataError(f"{path}: the 'file' of {missing[0]!r} names none for the part {part}; add it.")
    for files in together.values():
        ordered = tuple(map(place, in_order([*map(str, files)], dates)))
        of_each = (
            {name: own_file(file, known[file], within(path.parent, named)) for name, named in own.items()}
            for file in ordered
        )
        yield DataFile(ordered, description, part, dict(zip(ordered, of_each, strict=True)) if own else {})


READER = Reader(
    layout=f"files that a {BESIDE} beside them describes",
    suffixes=(),
    recognises=is_description,
    open=open_description,
)
