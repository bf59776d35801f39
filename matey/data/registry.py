"""Opens a data set by its content: asks each known format whether it recognises a file, and joins files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, NoReturn

from matey.config import DataDescription, DataSection
from matey.config.flags import started_as
from matey.data.arrays.kinds import KINDS
from matey.data.arrays.zarr import is_zarr
from matey.data.described import DataFile, DescribedFiles
from matey.data.files import BESIDE, description_beside, description_of, find_files
from matey.data.hdf5 import beginning, opened_once
from matey.data.remote import RemotePath, place
from matey.data.splits import Share, alone
from matey.data.trajectories import DataError, Reader, TrajectorySet, check_fields, check_printable
from matey.data.views import JoinedTrajectories, TimeBlocks
from matey.mistakes import listed
from matey.registry import Registry, RegistryError

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
        "described": "matey.data.files:READER",
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
    (files,) = share(partial(_find, description), [path])
    parts = share(describe, files)
    unknown = [file for file, part in zip(files, parts, strict=True) if part is None]
    if len(unknown) == len(files):
        share(_refuse, unknown[:1])
    systems: dict[str, list[str]] = {}
    for file, part in sorted(zip(files, parts, strict=True), key=lambda pair: pair[1] is None):
        systems.setdefault("unknown layout" if part is None else part.system, []).append(str(file.path))
    if len(systems) > 1:
        found = "; ".join(f"{system}: {listed(paths)}" for system, paths in systems.items())
        beside = description_beside(unknown[0].path) if unknown else None
        remedy = (
            f"give {beside} as the path to have only what it names" if beside else "open each as a data set of its own"
        )
        raise DataError(f"{path} must hold one system, but holds {found}; {remedy}.")
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
        TimeBlocks(data, section.split) if each.split_by == "time" else data
        for each, data in zip(section.sets, opened, strict=True)
    ]


def check_found(path: str | Path, description: DataDescription | None = None) -> None:
    """Raise DataError if there is no file that `open_dataset` would open; paths on other machines are not checked."""
    if not isinstance(place(path), RemotePath):
        _find(description, path)


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
        reader = next((reader for reader in _readers() if reader.recognises(file.path)), None)
        return None if reader is None else reader.open(file.path)


def open_each(path: str | Path) -> tuple[list[TrajectorySet], list[DataError]]:
    """Open a file, folder or glob that may hold several systems, as one set for each.

    Returns:
        The sets, and the errors about files that could not be opened.

    Raises:
        DataError: no file is found.
    """
    parts: dict[tuple[object, ...], list[TrajectorySet]] = {}
    errors = []
    for file in find_files(path, _suffixes()):
        try:
            part = describe(file) or _refuse(file)
        except DataError as error:
            errors.append(error)
        else:
            parts.setdefault((part.system, part.fields, part.units), []).append(part)
    return [_joined(group) for group in parts.values()], errors


def _find(description: DataDescription | None, path: str | Path) -> list[DataFile]:
    return find_files(path, _suffixes(), description)


def _joined(parts: list[TrajectorySet]) -> TrajectorySet:
    """Return the trajectories of all parts; parts with the same description become one."""
    together: list[TrajectorySet] = []
    for _, alike in groupby(parts, key=lambda part: part.description if isinstance(part, DescribedFiles) else None):
        group = [*alike]
        described = [part for part in group if isinstance(part, DescribedFiles)]
        together += [DescribedFiles.joined(described)] if described else group
    check_fields(parts[0].system, parts[0].fields)
    data = together[0] if len(together) == 1 else JoinedTrajectories(together)
    of_each = (name for about in data.trajectories for name in (str(about.source), *about.parameters))
    check_printable(data.sources[0], (data.system, *data.fields, *data.given, *data.units, *of_each))
    return data


def _readers() -> Iterator[Reader]:
    try:
        yield from (reader for _, reader in READERS.items())
    except RegistryError as error:
        raise DataError(str(error)) from None


def _suffixes() -> tuple[str, ...]:
    return tuple(dict.fromkeys(suffix for reader in _readers() for suffix in reader.suffixes))


def _refuse(file: DataFile) -> NoReturn:
    held = _outline(file.path)
    if any(item.startswith("forecast_period ") for item in held):
        raise DataError(
            f"{file.path} is a forecast in a format that is not read as data; forecast into .h5 (The Well) instead."
        )
    found = listed(held)
    known = "; ".join(reader.layout for reader in _readers())
    raise DataError(
        f"{file.path} has a layout that no reader knows: it holds {found}, but known are: {known}. Write it in one of "
        f"these, or describe it: {started_as('tools/inspect_data.py', 'inspect')} {file.path} --describe {BESIDE}"
        f"{_other_description(file.path)}"
    )


def _other_description(file: Path) -> str:
    """Return a hint on a description near a file that leaves it out, or has another name; empty where there is none."""
    if (beside := description_beside(file)) is not None:
        return f". {beside} does not name it in 'files'."
    others = [] if isinstance(file, RemotePath) else sorted(file.parent.glob("*.y*ml"))
    return f". If {others[0]} describes it, call that {BESIDE}, or give it as the path." if others else ""


def _outline(file: Path) -> list[str]:
    """Describe the contents of a file of any kind that some reader reads."""
    kind = next((kind for kind in KINDS.values() if kind.recognises(file)), None)
    if kind is not None:
        return [f"{name} {stored.outline}" for name, stored in kind.arrays(file).items()]
    of_packages = [READERS[name] for name in READERS if name not in READERS.own]
    others = "".join(f", nor {reader.layout}" for reader in of_packages if file.suffix in reader.suffixes)
    raise DataError(f"{file} is not an HDF5, classic netCDF or NumPy file{others}: {beginning(file)}.")
