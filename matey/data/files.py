"""Finds the files of a data set that a path, a folder or a glob stands for, and the description of each."""

from __future__ import annotations

import difflib
import glob
import os
from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from matey.config import DataDescription
from matey.data import descriptions
from matey.data.arrays.kinds import is_folder, search_folder
from matey.data.located import DataFile
from matey.data.remote.paths import RemotePath, matches, place, would_match
from matey.data.signature import folder_of
from matey.data.trajectories import DataError
from matey.mistakes import listed, printable


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
                description = descriptions.with_tables_in(_folder_of(whole), description)
            return descriptions.files_in(whole, description)
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
    known = [folder / descriptions.BESIDE for folder in new.parents]
    for path in [*known, *([] if named is None else [Path(os.path.abspath(_absolute(named)))])]:
        if descriptions.is_description(path):
            found = descriptions.would_describe(path, new)
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
        beside = file if descriptions.is_description(file) else descriptions.description_beside(file)
        if beside is None:
            yield DataFile((file,)), file
            continue
        if beside not in known:
            description = descriptions.read_description(beside, is_named=beside == asked)
            covered = descriptions.described_files(beside, description)
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
        if path.is_dir() and (said := folder_of(path)):
            raise DataError(f"{path} holds no data file: {said}.")
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
    found = search_folder(folder, suffixes, [descriptions.BESIDE])
    described = [file for file in found if file.name == descriptions.BESIDE]
    covered = {
        file
        for path in described
        for each in descriptions.described_files(path, descriptions.read_description(path, is_named=False))
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
