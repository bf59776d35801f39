"""Names that fields and parameters cannot have."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from matey.data.trajectory import DataError
from matey.mistakes import listed, printable

if TYPE_CHECKING:
    from matey.data.trajectories import TrajectorySet

ALL_FIELDS = "all"
"""Name of the mean over the fields, in records of evaluations."""


def check_fields(system: str, names: Iterable[str]) -> None:
    """Raise DataError if a field is called as the mean over the fields is."""
    if ALL_FIELDS in names:
        raise DataError(f"{system}: no field may be called {ALL_FIELDS!r}, as the mean over all fields is; rename it.")


def check_printable(data: TrajectorySet) -> None:
    """Raise DataError if a name in the files holds control characters, which tables would send to the terminal."""
    of_each = (text for about in data.trajectories for text in (str(about.source), *about.parameters))
    for name in (data.system, *data.fields, *data.given, *data.units, *of_each):
        if printable(name) != name:
            raise DataError(f"{data.sources[0]}: the name {name!r} holds control characters; rename it.")


def check_storable(system: str, names: Iterable[str]) -> None:
    """Raise DataError if fields or parameters have names that stand for a place inside of an HDF5, netCDF or Zarr file."""
    if wrong := [name for name in names if "/" in name or name in (".", "..")]:
        raise DataError(
            f"{system}: files of forecasts and The Well's layout take a name with / for a group, and . and .. for places; "
            f"got {listed(wrong)}: rename it."
        )
