"""Opens a data set: finds the files that a path, folder or glob stands for, asks which reader knows each, and joins them."""

from __future__ import annotations

import difflib
import glob
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, NoReturn

from pydantic import ValidationError

from matey.config import DataDescription, DataSection
from matey.config.description import WILDCARD, ParameterSource, TimeSource, patterns_in
from matey.config.loading import PlainTextError, parse_yaml, read_text, sentences
from matey.data.arrays import files_of, gridded_files, is_folder, is_zarr, kind_of
from matey.data.coordinates import date_pattern, in_order
from matey.data.described import DataFile, DescribedFiles
from matey.data.hdf5 import opened_once
from matey.data.remote import RemotePath, matches, place, within
from matey.data.splits import Share, alone
from matey.data.trajectories import DataError, Part, Reader, TrajectorySet, check_printable
from matey.data.views import JoinedTrajectories, TimeBlocks
from matey.mistakes import listed
from matey.registry import Registry

BESIDE = "matey.yaml"
"""Name of a description that is found without being named, in the folder of the data or the one above."""

READERS: Registry[Reader] = Registry(
    "reader",
    "matey.readers",
    {
        "shallow_water": "matey.data.pdebench:SHALLOW_WATER_READER",
        "diffusion_reaction": "matey.data.pdebench:DIFFUSION_REACTION_READER",
        "incompressible": "matey.data.pdebench:INCOMPRESSIBLE_READER",
        "compressible": "matey.data.pdebench:COMPRESSIBLE_READER",
        "miniweather": "matey.data.miniweather:READER",
        "cavity": "matey.data.cavity:HDF5_READER",
        "cavity_array": "matey.data.cavity:ARRAY_READER",
        "the_well": "matey.data.the_well:READER",
    },
    type="matey.data.trajectories:Reader",
)
"""All known formats, asked in this order; those of installed packages come after our own (docs/extending.md)."""


def open_dataset(
    path: str | Path,
    description: DataDescription | Mapping[str, Any] | None = None,
    share: Share = alone,
) -> TrajectorySet:
    """Open a file, a folder (with its sub-folders) or a glob pattern as trajectories of one system.

    Several files of one system are joined in the order of their sorted paths. A user's own files are read by their
    description: a ``matey.yaml`` beside them, any YAML that ``path`` names, or ``description``.

    Args:
        path: file, folder or glob.
        description: description by which all files are read, whatever they look like; also a mapping as in YAML.
        share: function that shares the files out over ranks; all ranks then call this function.

    Raises:
        DataError: no file is found, a file is corrupt or of unknown layout, there is more than one system, or the description
            is invalid.
    """
    if isinstance(description, Mapping):
        description = description_of(description, f"The description of {path}")
    (files,) = share(partial(find_files, description=description), [path])
    parts = share(describe, files)
    unknown = [file for file, part in zip(files, parts, strict=True) if part is None]
    if len(unknown) == len(files):
        share(_refuse, unknown[:1])
    systems: dict[str, list[str]] = {}
    for file, part in sorted(zip(files, parts, strict=True), key=lambda pair: pair[1] is None):
        systems.setdefault("unknown layout" if part is None else part.system, []).append(str(file.path))
    if len(systems) > 1:
        found = "; ".join(f"{system}: {listed(paths)}" for system, paths in systems.items())
        raise DataError(
            f"{path} must hold one system, but holds {found}; open each as a data set of its own, or give a {BESIDE} as the "
            "path to have only what it names."
        )
    return _joined([part for part in parts if part is not None])


def open_sets(section: DataSection, share: Share = alone) -> list[TrajectorySet]:
    """Open the data sets of a run; those with ``split_by: time`` are cut, see `TimeBlocks`.

    Args:
        section: the settings of the run's data.
        share: see `open_dataset`.

    Raises:
        DataError: see `open_dataset`; or a trajectory is too short to be cut.
    """
    opened = [open_dataset(each.path, each.description, share) for each in section.sets]
    return [
        TimeBlocks.by_shares(data, section.split) if each.split_by == "time" else data
        for each, data in zip(section.sets, opened, strict=True)
    ]


def check_found(path: str | Path, description: DataDescription | None = None) -> None:
    """Raise DataError if there is no file that `open_dataset` would open; paths on other machines are not checked."""
    if not isinstance(place(path), RemotePath):
        find_files(path, description)


def describe(file: DataFile) -> TrajectorySet | None:
    """Return the trajectories of a file, which is opened only once; None if no reader knows its layout.

    Raises:
        DataError: the file is corrupt, or does not fit its description.
    """
    if file.description is not None:
        return DescribedFiles(file.description, [file])
    with opened_once(file.path):
        if is_zarr(file.path):
            return None
        reader = next((reader for _, reader in READERS.items() if reader.recognises(file.path)), None)
        return None if reader is None else reader.open(file.path)


def open_each(path: str | Path) -> tuple[list[TrajectorySet], list[DataError]]:
    """Open a file, folder or glob that may hold several systems, as one set for each.

    Returns:
        The sets, and the errors about files that could not be opened; the same about several files is one.

    Raises:
        DataError: no file is found.
    """
    parts: dict[tuple[object, ...], list[TrajectorySet]] = {}
    errors: dict[str, list[str]] = {}
    for file in find_files(path):
        try:
            part = describe(file) or _refuse(file)
        except DataError as error:
            errors.setdefault(str(error).replace(str(file.path), ""), [str(error)]).append(str(file.path))
        else:
            parts.setdefault((part.system, part.fields, part.units), []).append(part)
    found = [
        DataError(f"{first} (The same in {', '.join(others)}.)" if others else first)
        for first, _, *others in errors.values()
    ]
    return [_joined(group) for group in parts.values()], found


def _joined(parts: list[TrajectorySet]) -> TrajectorySet:
    """Return the trajectories of all parts; parts with the same description become one."""
    together: list[TrajectorySet] = []
    for _, alike in groupby(parts, key=lambda part: part.description if isinstance(part, DescribedFiles) else None):
        group = [*alike]
        described = [part for part in group if isinstance(part, DescribedFiles)]
        together += [type(described[0])(described[0].description, [], described)] if described else group
    data = together[0] if len(together) == 1 else JoinedTrajectories(together)
    of_each = (name for about in data.trajectories for name in (str(about.source), *about.parameters))
    check_printable(data.sources[0], (data.system, *data.fields, *data.given, *data.units, *of_each))
    return data


def _refuse(file: DataFile) -> NoReturn:
    arrays, beside = kind_of(file.path).arrays(file.path), description_beside(file.path)
    found = listed(f"{name} {stored.outline}" for name, stored in arrays.items())
    known = "; ".join(reader.layout for _, reader in READERS.items())
    description = BESIDE if isinstance(file.path, RemotePath) else file.path.with_name(BESIDE)
    command = f"matey inspect {file.path} --describe {description}"
    raise DataError(
        f"{file.path} has a layout that no reader knows: it holds {found}, but known are: {known}. Write it in one of "
        f"these, or {f'name it in files of {beside}' if beside else f'describe it: {command}'}"
    )


_SUFFIXES = (".yaml", ".yml")


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
    files = description.files
    of_parts: list[tuple[Part | None, Any]] = [*files.items()] if isinstance(files, dict) else [(None, files)]
    return _each_once([each for part, of in of_parts for each in _all_of(path, of, description, part)])


def description_beside(file: Path) -> Path | None:
    """Return the description that may cover a file: ``matey.yaml`` in its folder, or in the one above."""
    return next((path for path in (file.parent / BESIDE, file.parent.parent / BESIDE) if path.is_file()), None)


def _each_once(files: list[DataFile]) -> list[DataFile]:
    """Return the files; raise DataError if one occurs twice, maybe by another name, since held-out data would be trained on."""
    known: dict[tuple[int, int], tuple[Path, Part | None]] = {}
    for path, part in ((path, each.part) for each in files for path in each.paths):
        about = path.stat()
        before = known.setdefault((about.st_dev, about.st_ino), (path, part))
        if before != (path, part):
            parts = f" in {before[1]} and in {part}" if before[1] != part else ""
            raise DataError(
                f"{path} and {before[0]} are the same file{parts}; name it once, or one part trains on what another holds out."
            )
    return files


def _all_of(
    path: Path, patterns: str | tuple[str, ...] | None, description: DataDescription, part: Part | None = None
) -> Iterator[DataFile]:
    """Yield the files that patterns match, each once, and the files of a trajectory together."""
    step = description.time_step
    dates = step.date_in_name if isinstance(step, TimeSource) else None
    known: dict[Path, Path] = {}  # the pattern of each file
    together: dict[str, list[Path]] = {}
    for pattern in patterns_in(patterns) or ["."]:
        whole = within(path.parent, pattern)
        found = gridded_files(whole)
        if not found:
            raise DataError(
                f"{path}: no data file matches {pattern!r}; put it there, or correct 'files', which start from this folder."
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


def find_files(path: str | Path, description: DataDescription | None = None) -> list[DataFile]:
    """Return the data files that a path stands for, sorted; a file named by ``path`` is taken whatever its suffix.

    Args:
        path: file, folder or glob.
        description: description by which all files are read, whatever they look like.

    Raises:
        DataError: no file is found, a folder may not be read, or a name or description cannot be used.
    """
    whole = place(path).expanduser().absolute()
    try:
        if description is not None:
            # The folder of the data: the path itself, or the one above a file, a store or a pattern.
            folder = whole if is_folder(whole) else next(at for at in whole.parents if not glob.has_magic(str(at)))
            return files_in(whole, with_tables_in(folder, description))
        return list(_with_descriptions(_found_at(whole), whole))
    except OSError as error:
        raise DataError(
            f"{error.filename or path} cannot be read ({error.strerror}); ask its owner, or restore what a link leads to."
        ) from None


def _with_descriptions(files: Sequence[Path], asked: Path) -> Iterator[DataFile]:
    """Yield each file with the description that covers it; a description among ``files`` stands for all its files.

    Where a trajectory lies in several files, those among ``files`` are taken, together. Only a description that the user has
    ``asked`` for may name files on other machines.
    """
    beside = {file: file if file.suffix in _SUFFIXES else description_beside(file) for file in files}
    covered: dict[Path, list[DataFile]] = {}  # by description, each read once
    for path in dict.fromkeys(filter(None, beside.values())):
        covered[path] = described_files(path, read_description(path, is_named=path == asked))
    of_file: dict[Path, tuple[DataFile, Path]] = {}
    for each in (each for of_one in covered.values() for each in of_one):
        of_file |= {path: (each, path) for path in each.paths}
        for path, own in each.own.items():
            of_file = {file: (each, path) for file in own.values()} | of_file
    named: dict[Path, tuple[DataFile, set[Path]]] = {}
    for file in sorted(files, key=lambda file: beside[file] != file):  # descriptions first: their order counts
        found = [(each, path) for each in covered[file] for path in each.paths] if beside[file] == file else None
        for each, path in found or [of_file.get(file, (DataFile((file,)), file))]:
            named.setdefault(each.path, (each, set()))[1].add(path)
    for each, of_it in named.values():
        yield replace(each, paths=tuple(path for path in each.paths if path in of_it))


def _found_at(path: Path) -> list[Path]:
    found = [path] if path.exists() else matches(path) if glob.has_magic(str(path)) else []
    if not found:
        raise DataError(f"{path} does not exist; {_nearby(path)}")
    suffixes = dict.fromkeys(suffix for _, reader in READERS.items() for suffix in reader.suffixes)
    files = files_of(found, suffixes, [BESIDE])
    if not files:
        raise DataError(
            f"{path} holds no data file: expected files ending in {', '.join(suffixes)} in it or its sub-folders; give the "
            "folder or file that holds the data."
        )
    return list(dict.fromkeys(files))


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


def trajectory_of(file: Path, pattern: Path) -> str:
    """Return the key that files of a trajectory share: the path with ``*`` where the pattern's last wildcard matches.

    For a pattern without wildcards, and for a file in a folder that the pattern matches, the key is the folder.
    """
    parts = WILDCARD.split(str(pattern))
    if len(parts) > 1 and parts[-2] != "**":
        *before, _, tail = parts
        head = "".join(".*" if number % 2 else re.escape(part) for number, part in enumerate(before))
        if match := re.fullmatch(f"({head})[^/]*({re.escape(tail)})", str(file)):
            return "*".join(match.groups())
    return str(file.parent)


def own_file(file: Path, pattern: Path, own: Path) -> Path:
    """Return the field's own file that belongs to another file.

    Args:
        file: the other file.
        pattern: path or glob by which the other file was found.
        own: path of the field's file; its wildcards stand for the same texts, in order, as those of ``pattern``.

    Raises:
        DataError: the wildcards of ``pattern`` do not tell what those of ``own`` stand for.
    """
    parts, path = WILDCARD.split(str(pattern)), WILDCARD.split(str(own))
    alike = "".join("([^/]*)" if number % 2 else re.escape(part) for number, part in enumerate(parts))
    match = re.fullmatch(alike, str(file))
    found = match.groups() if match else ()
    if len(path) // 2 > len(found):
        raise DataError(
            f"{own}: expected wildcards that 'files' has too, but {file}, found as {pattern}, does not say what they "
            f"stand for; write a * into 'files' for each of them."
        )
    path[1::2] = found[: len(path) // 2]
    return place("".join(path))
