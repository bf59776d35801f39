"""Names that fields and parameters cannot have."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from matey.data.trajectory import DataError
from matey.mistakes import listed, printable

ALL_FIELDS = "all"
"""Name of the mean over the fields, in records of evaluations."""


def check_fields(system: str, names: Iterable[str]) -> None:
    """Raise DataError if a field is called as the mean over the fields is."""
    if ALL_FIELDS in names:
        raise DataError(f"{system}: no field may be called {ALL_FIELDS!r}, as the mean over all fields is; rename it.")


def check_printable(source: Path, names: Iterable[str]) -> None:
    """Raise DataError if a name in a file holds control characters, which tables would send to the terminal."""
    for name in names:
        if printable(name) != name:
            raise DataError(f"{source}: the name {name!r} holds control characters; rename it.")


def check_storable(system: str, names: Iterable[str]) -> None:
    """Raise DataError if fields or parameters have names that stand for a place inside of an HDF5, netCDF or Zarr file."""
    if wrong := [name for name in names if "/" in name or name in (".", "..")]:
        raise DataError(
            f"{system}: files of forecasts and The Well's layout take a name with / for a group, and . and .. for places; "
            f"got {listed(wrong)}: rename it."
        )
