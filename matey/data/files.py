"""Finds the files of a data set that a path, a folder or a glob stands for, and the description of each."""

from __future__ import annotations

import difflib
import glob
import os
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from matey.config import DataDescription
from matey.config.description import ParameterSource, TimeSource, patterns_in
from matey.config.files import PlainTextError, parse_yaml, read_text
from matey.config.loading import sentences
from matey.data.arrays.kinds import gridded_files, is_folder, search_folder
from matey.data.dates import date_pattern, in_order
from matey.data.described import DataFile, DescribedFiles
from matey.data.remote import RemotePath, matches, place, within, would_match
from matey.data.snapshots import own_file, trajectory_of
from matey.data.trajectories import DataError, Part, Reader, TrajectorySet
from matey.mistakes import listed, printable

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
    known: dict[Path, Path] = {}  # the pattern of each file
    together: dict[str, list[Path]] = {}
    for pattern in patterns_in(patterns) or ["."]:
        whole = within(path.parent, pattern)
        found = gridded_files(whole)
        if not found:
            raise DataError(
                f"{path}: no file matches {pattern!r}; correct 'files', which start from the description's folder."
            )
        for file in found:
            if file in known:
                continue
            known[file] = whole
            apart = re.sub(f"(.*){date_pattern(dates)}", r"\1*", str(file)) if dates else trajectory_of(file, whole)
            together.setdefault(apart if description.in_files else str(file), []).append(file)
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


def find_files(
    path: str | Path, suffixes: Collection[str], description: DataDescription | None = None
) -> list[DataFile]:
    """Return the data files that a path stands for, sorted; a file named by ``path`` is taken whatever its suffix.

    Args:
        path: file, folder or glob.
        suffixes: suffixes of the files that count when a folder is searched.
        description: description by which all files are read, whatever they look like.

    Raises:
        DataError: no file is found, a folder may not be read, or a name or description cannot be used.
    """
    whole = _absolute(path)
    try:
        if description is not None:
            if description.tables:
                description = with_tables_in(_folder_of(whole), description)
            return files_in(whole, description)
        return list(_with_descriptions(_find(whole, suffixes), whole))
    except PermissionError as error:
        raise DataError(
            f"{error.filename or path} cannot be read ({error.strerror}); ask its owner for read permission."
        ) from None


def would_find(file: Path, named: str | Path | None = None) -> Path | None:
    """Return the folder, glob or description that would take a future file for data; None if none would.

    Args:
        file: path of the future file.
        named: path by which data is opened; descriptions in the folders above the file are checked first.
    """
    new = Path(os.path.abspath(file))
    known = [folder / BESIDE for folder in new.parents]
    for path in [*known, *([] if named is None else [Path(os.path.abspath(_absolute(named)))])]:
        if is_description(path):
            found = would_describe(path, new)
        else:
            found = (path.is_dir() or glob.has_magic(str(path))) and would_match(path, new)
        if found:
            return path
    return None


def _folder_of(path: Path) -> Path:
    """Return the folder of the data that a path stands for: the path itself, or the folder of a file, a store or a pattern."""
    return path if is_folder(path) else next(folder for folder in path.parents if not glob.has_magic(str(folder)))


def _with_descriptions(files: Iterable[Path], asked: Path) -> Iterator[DataFile]:
    """Yield each file with the description that covers it; a description among ``files`` stands for all its files.

    Where a trajectory lies in several files, those among ``files`` are taken, together. Only a description that the user has
    ``asked`` for may name files on other machines.
    """
    named: dict[Path, tuple[DataFile, set[Path]]] = {}
    for each, file in _covered(files, asked):
        named.setdefault(each.path, (each, set()))[1].add(file)
    for each, of_it in named.values():
        yield replace(each, paths=tuple(path for path in each.paths if path in of_it))


def _covered(files: Iterable[Path], asked: Path) -> Iterator[tuple[DataFile, Path]]:
    """Yield pairs of the data file that a file belongs to, and the file."""
    known: dict[Path, dict[Path, tuple[DataFile, Path]]] = {}  # by description, each read once
    for file in files:
        beside = file if is_description(file) else description_beside(file)
        if beside is None:
            yield DataFile((file,)), file
            continue
        if beside not in known:
            description = read_description(beside, is_named=beside == asked)
            covered = described_files(beside, description)
            known[beside] = {path: (each, path) for each in covered for path in each.paths}
            of_fields = (
                (own, each, path) for each in covered for path, named in each.own.items() for own in named.values()
            )
            for own, each, path in of_fields:
                known[beside].setdefault(own, (each, path))
        if beside == file:
            yield from known[beside].values()
        else:
            yield known[beside].get(file, (DataFile((file,)), file))


def _absolute(path: str | Path) -> Path:
    _check_name(str(path))
    try:
        return place(path).expanduser().absolute()
    except RuntimeError:
        raise DataError(f"{path}: there is no home folder that ~ could stand for; write the path in full.") from None


def _find(path: Path, suffixes: Collection[str]) -> list[Path]:
    if path.exists():
        found = [path]
    elif glob.has_magic(str(path)):
        found = matches(path)
        if not found:
            raise DataError(f"No file matches {path}; {_nearby(path)}")
    else:
        raise DataError(f"{path} does not exist; {_nearby(path)}")
    files = [file for match in found for file in (_search(match, suffixes) if is_folder(match) else [match])]
    if not files:
        inside = sorted(item.name for item in path.iterdir()) if path.is_dir() else found
        raise DataError(
            f"{path} holds no data file: expected files ending in {', '.join(suffixes)} in it or its sub-folders, "
            f"found {listed(map(str, inside))}; give the folder or file that holds the data."
        )
    for file in files:
        _check_name(str(file))
    return list(dict.fromkeys(files))


def _check_name(name: str) -> None:
    """Raise DataError if a name cannot be written on one line; Python decodes bytes that are not UTF-8 to surrogates."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        raise DataError(
            f"{ascii(name)} has a name that is not text in UTF-8, which no log can hold; rename it."
        ) from None
    if printable(name) != name:
        raise DataError(
            f"{name!r} has line breaks or control characters in its name, which no log can hold; rename it."
        )


def _search(folder: Path, suffixes: Collection[str]) -> list[Path]:
    """Return the data files in a folder; a description stands for the files that it covers."""
    found = search_folder(folder, suffixes, [BESIDE])
    described = [file for file in found if file.name == BESIDE]
    covered = {
        file
        for path in described
        for each in described_files(path, read_description(path, is_named=False))
        for file in (*each.paths, *(own for named in each.own.values() for own in named.values()))
    }
    return [file for file in found if file not in covered]


def _nearby(path: Path) -> str:
    """Return a hint on a missing path: siblings with similar names, or the contents of the nearest existing folder."""
    if isinstance(path, RemotePath):
        return "check the address, and that you may read it."
    missing = path
    while not missing.parent.is_dir():  # the parent is a file where someone asked for a group in it
        missing = missing.parent
    names = sorted(item.name for item in missing.parent.iterdir())
    close = difflib.get_close_matches(missing.name, names, n=3, cutoff=0.6)
    if close:
        return f"did you mean {' or '.join(str(missing.parent / name) for name in close)}?"
    return f"{missing.parent} holds {listed(names)}."
