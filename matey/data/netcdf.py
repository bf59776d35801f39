"""Opens and reads classic netCDF files (CDF-1 and CDF-2), and says in plain words what is wrong with them.

netCDF-4 files are HDF5, and read as such. A file is mapped into memory for each read and let go of again, so nothing is
shared between processes; its header has a few hundred bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from matey.data.signature import first_bytes
from matey.data.trajectories import DataError
from matey.mistakes import one_line

if TYPE_CHECKING:
    from scipy.io import netcdf_file


@dataclass(frozen=True)
class Variable:
    """A variable as the header describes it.

    Attributes:
        axes: names of its dimensions in the order of the file.
        shape: lengths of the axes.
    """

    axes: tuple[str, ...]
    shape: tuple[int, ...]


def describe_netcdf(path: Path) -> dict[str, Variable]:
    """Return the variables of a file.

    Raises:
        DataError: the file is missing, truncated, corrupt, or of the 64-bit format CDF-5.
    """
    with opened_netcdf(path) as file:
        return {name: Variable(item.dimensions, item.shape) for name, item in file.variables.items()}


def read_netcdf(path: Path, variables: Sequence[str], part: tuple[slice, ...]) -> list[np.ndarray]:
    """Read a part of each variable, and nothing else of them; of axes that ``part`` does not reach, all.

    Raises:
        DataError: the file cannot be read, see ``describe_netcdf``, or a variable is gone.
    """
    with opened_netcdf(path) as file:
        for name in variables:
            if name not in file.variables:
                raise DataError(f"{path} has no variable {name!r} any more; it was changed while in use.")
        return [_copy(file.variables[name].data[part]) for name in variables]


def outline_netcdf(path: Path) -> list[str]:
    """Name the variables of a file with their shapes, for a message.

    Raises:
        DataError: the file cannot be read, see ``describe_netcdf``.
    """
    return [f"{name} {variable.shape}" for name, variable in describe_netcdf(path).items()]


@contextmanager
def opened_netcdf(path: Path) -> Iterator[netcdf_file]:
    """Open a file for as long as the block lasts.

    Raises:
        DataError: see ``describe_netcdf``.
    """
    from scipy.io import netcdf_file  # a third of the time that all readers take to import

    if first_bytes(path).startswith(b"CDF\x05"):
        raise DataError(f"{path} is netCDF CDF-5, which is not read here; convert it: nccopy -k netCDF-4 IN OUT.")
    try:
        file = netcdf_file(path, "r", mmap=True)
    # What scipy was seen to raise when the header or the data end too early.
    except (OSError, ValueError, TypeError, IndexError, KeyError) as error:
        raise DataError(
            f"{path} cannot be read as classic netCDF ({one_line(error)}); it is truncated or corrupt: copy it again."
        ) from error
    with file:
        yield file


def _copy(values: np.ndarray) -> np.ndarray:
    """A copy in this machine's byte order: the file is big-endian, and a view would hold on to the mapping."""
    return values.astype(values.dtype.newbyteorder("="))
