"""Opens a data set by looking at what is in it: asks each known format whether a file is its own, and joins files."""

from __future__ import annotations

import difflib
import glob
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from matey.config import DataDescription
from matey.data import descriptions
from matey.data.arrays.kinds import is_folder, search_folder
from matey.data.arrays.zarr import describe as describe_zarr
from matey.data.arrays.zarr import is_zarr
from matey.data.hdf5 import is_hdf5, opened_once, outline_hdf5
from matey.data.joined import JoinedTrajectories
from matey.data.netcdf import outline_netcdf
from matey.data.npy import outline_npy
from matey.data.signature import beginning, is_classic_netcdf, is_npy
from matey.data.trajectories import DataError, Reader, TrajectorySet
from matey.registry import Registry, RegistryError

_MAX_LISTED = 8

READERS: Registry[Reader] = Registry(
    "reader",
    "matey.readers",
    {
        "shallow_water": "matey.data.pdebench:SHALLOW_WATER_READER",
        "diffusion_reaction": "matey.data.pdebench:DIFFUSION_REACTION_READER",
        "incompressible": "matey.data.pdebench_incompressible:READER",
        "compressible": "matey.data.pdebench_compressible:READER",
        "miniweather": "matey.data.miniweather:READER",
        "cavity": "matey.data.cavity:HDF5_READER",
        "cavity_array": "matey.data.cavity:ARRAY_READER",
        "the_well": "matey.data.the_well:READER",
        "described": "matey.data.descriptions:READER",
    },
    type="matey.data.trajectories:Reader",
)
"""All known formats, asked in this order; those of installed packages come after our own (docs/extending.md)."""


def open_dataset(path: str | Path, description: DataDescription | None = None) -> TrajectorySet:
    """Open a file, a folder (with its sub-folders) or a glob pattern as trajectories of one system.

    Several files of one system are joined in the order of their sorted paths. Files of a user's own are read by their
    description: a ``matey.yaml`` beside them, any YAML that ``path`` names, or ``description``.

    Args:
        path: file, folder or glob.
        description: the contents of the files, by which they are read whatever they look like.

    Raises:
        DataError: nothing is there, a file is corrupt or of unknown layout, or there is more than one system.
    """
    if description is not None:
        return descriptions.open_described(_absolute(path), description)
    files = _find_files(_absolute(path))
    parts: list[TrajectorySet] = []
    unknown: list[Path] = []
    for file in files:
        with opened_once(file):
            reader = _reader_of(file)
            if reader is None:
                unknown.append(file)
            else:
                parts.append(reader.open(file))
    if len(unknown) == len(files):
        raise DataError(_unknown_layout(unknown[0]))
    systems: dict[str, list[str]] = {}
    for system, file in [(part.system, part.sources[0]) for part in parts] + [("unknown layout", f) for f in unknown]:
        systems.setdefault(system, []).append(str(file))
    if len(systems) > 1:
        found = "; ".join(f"{system}: {_listed(paths)}" for system, paths in systems.items())
        raise DataError(f"{path} must hold one system, but holds {found}; open each as a data set of its own.")
    return _joined(parts)


def open_each(path: str | Path) -> tuple[list[TrajectorySet], list[DataError]]:
    """Open a file, folder or glob that may hold several systems, as one set for each.

    Returns:
        The sets, and what was wrong with files that could not be opened.

    Raises:
        DataError: nothing is there.
    """
    parts: dict[tuple[object, ...], list[TrajectorySet]] = {}
    errors = []
    for file in _find_files(_absolute(path)):
        try:
            reader = _reader_of(file)
            if reader is None:
                raise DataError(_unknown_layout(file))
            part = reader.open(file)
        except DataError as error:
            errors.append(error)
        else:
            parts.setdefault((part.system, part.fields, part.units), []).append(part)
    return [_joined(group) for group in parts.values()], errors


def _joined(parts: list[TrajectorySet]) -> TrajectorySet:
    return parts[0] if len(parts) == 1 else JoinedTrajectories(parts)


def _reader_of(file: Path) -> Reader | None:
    """The reader of a file, None if its layout is unknown."""
    beside = descriptions.description_beside(file)
    if beside is not None:
        return replace(descriptions.READER, open=partial(descriptions.open_beside, beside))
    if is_zarr(file):
        return None
    return next((reader for reader in _readers() if reader.recognises(file)), None)


def _readers() -> Iterator[Reader]:
    try:
        yield from (reader for _, reader in READERS.items())
    except RegistryError as error:
        raise DataError(str(error)) from None


def _absolute(path: str | Path) -> Path:
    _check_name(str(path))
    try:
        return Path(path).expanduser().absolute()
    except RuntimeError:
        raise DataError(f"{path}: there is no home folder that ~ could stand for; write the path in full.") from None


def _find_files(path: Path) -> list[Path]:
    """Data files that ``path`` stands for, sorted; a file that is named itself is taken whatever its suffix."""
    if path.exists():
        matches = [path]
    elif glob.has_magic(str(path)):
        matches = [Path(match) for match in sorted(glob.glob(str(path), recursive=True))]
        if not matches:
            raise DataError(f"No file matches {path}; {_nearby(path)}")
    else:
        raise DataError(f"{path} does not exist; {_nearby(path)}")
    files = [file for match in matches for file in (_search(match) if is_folder(match) else [match])]
    if not files:
        inside = sorted(item.name for item in path.iterdir()) if path.is_dir() else matches
        raise DataError(
            f"{path} holds no data file: expected files ending in {', '.join(_suffixes())} in it or its sub-folders, "
            f"found {_listed(map(str, inside)) or 'nothing'}; give the folder or file that holds the data."
        )
    for file in files:
        _check_name(str(file))
    return list(dict.fromkeys(files))


def _check_name(name: str) -> None:
    """Raise DataError if a name cannot be written on a line; of bytes that are no UTF-8, Python makes half characters."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        raise DataError(
            f"{ascii(name)} has a name that is not text in UTF-8, which no log can hold; rename it."
        ) from None
    if len(name.splitlines()) > 1 or "\0" in name:
        raise DataError(f"{name!r} has line breaks or null bytes in its name, which no log can hold; rename it.")


def _search(folder: Path) -> list[Path]:
    """Data files in a folder; a description stands for those that it covers."""
    found = search_folder(folder, _suffixes(), [descriptions.BESIDE])
    described = [file for file in found if file.name == descriptions.BESIDE]
    covered = {
        file
        for path in described
        for file, _ in descriptions.described_files(path, descriptions.read_description(path))
    }
    return [file for file in found if file not in covered]


def _suffixes() -> tuple[str, ...]:
    return tuple(dict.fromkeys(suffix for reader in _readers() for suffix in reader.suffixes))


def _nearby(path: Path) -> str:
    """What there is in place of a missing path: like-named siblings, or all of what its nearest folder holds."""
    missing = path
    while not missing.parent.is_dir():  # a file, where someone asked for a group inside it
        missing = missing.parent
    names = sorted(item.name for item in missing.parent.iterdir())
    close = difflib.get_close_matches(missing.name, names, n=3, cutoff=0.5)
    if close:
        return f"did you mean {' or '.join(str(missing.parent / name) for name in close)}?"
    return f"{missing.parent} holds {_listed(names) or 'nothing'}."


def _unknown_layout(file: Path) -> str:
    found = _listed(_outline(file)) or "nothing"
    known = "; ".join(reader.layout for reader in _readers())
    return (
        f"{file} has a layout that no reader knows: it holds {found}, but known are: {known}. Write it in one of these, or "
        f"describe it: python tools/inspect_data.py {file} --describe {descriptions.BESIDE}"
    )


def _outline(file: Path) -> list[str]:
    """What is in a file of any kind that some reader reads."""
    if is_zarr(file):
        return [f"{name} {stored.shape}" for name, stored in describe_zarr(file).items()]
    if is_classic_netcdf(file):
        return outline_netcdf(file)
    if is_npy(file):
        return outline_npy(file)
    if is_hdf5(file):
        return outline_hdf5(file)
    raise DataError(
        f"{file} is not an HDF5, classic netCDF or NumPy file: {beginning(file)}; give another or download it again."
    )


def _listed(items: Iterable[str]) -> str:
    items = list(items)
    more = f" and {len(items) - _MAX_LISTED} more" if len(items) > _MAX_LISTED else ""
    return ", ".join(items[:_MAX_LISTED]) + more
