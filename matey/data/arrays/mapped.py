"""Reads arrays in classic netCDF and ``.npy`` files, which are mapped into memory for one read at a time.

CDF-1 and CDF-2 are read with SciPy, CDF-5 with the netCDF library where it is installed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from matey.data.arrays.stored import FileKind, Index, StoredArray, as_text, not_read, packing_of
from matey.data.hdf5 import bytes_of, first_bytes, is_classic_netcdf, is_npy, most_held
from matey.data.trajectories import DataError, check_part
from matey.mistakes import one_line

NAME = "array"


def describe_npy(path: Path) -> dict[str, StoredArray]:
    """Return the description of the array in a file; mapping the file checks that it is as long as it claims.

    Raises:
        DataError: the file cannot be read, see `map_npy`.
    """
    array = map_npy(path)
    return {NAME: StoredArray(shape=array.shape, dtype=array.dtype)}


def no_attributes(path: Path, name: str) -> dict[str, Any]:
    """Return no attributes: a ``.npy`` file has none."""
    return {}


def map_npy(path: Path) -> np.ndarray:
    """Return an array whose values are read from the file when they are used; drop the array to close the file.

    Raises:
        DataError: the file is missing, unreadable, truncated or corrupt.
    """
    first_bytes(path)
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    # Errors that NumPy was seen to raise when header or data end early, or hold Python objects or a shape such as (-1, True).
    except (OSError, ValueError, EOFError, TypeError, OverflowError) as error:
        if "Python objects" in str(error):
            raise DataError(
                f"{path} holds Python objects, which are not read; save numbers: array.astype(float)."
            ) from None
        raise DataError(
            f"{path} cannot be read as a NumPy array ({one_line(error)}); it is truncated or corrupt: copy it again."
        ) from error


def _recognises_npy(path: Path) -> bool:
    return path.is_file() and is_npy(path)


def _read_npy(path: Path, name: str, index: Index) -> np.ndarray:
    try:
        return check_part(str(path), index, np.array(map_npy(path)[index]))
    except IndexError as error:
        raise not_read(path, name, str(error)) from error


NPY = FileKind("NumPy", (".npy",), _recognises_npy, describe_npy, no_attributes, _read_npy)


def describe_netcdf(path: Path) -> dict[str, StoredArray]:
    """Return the variables of a file.

    Raises:
        DataError: the file cannot be read, or is CDF-5 and the netCDF library is not installed.
    """
    limit = most_held(path.stat().st_size, is_compressed=False) if path.is_file() else 0
    with _opened(path) as file:
        return {name: _described(item, limit) for name, item in file.variables.items()}


def attributes_of_netcdf(path: Path, name: str) -> dict[str, Any]:
    """Return the attributes of a file, or of an array in it; there are no groups."""
    with _opened(path) as file:
        return _attributes(file.variables[name] if name in file.variables else file)


def _described(item: Any, limit: int) -> StoredArray:  # noqa: ANN401 (a variable of either library)
    dtype = np.dtype(item.dtype if hasattr(item, "dtype") else item.data.dtype)
    own = _attributes(item)
    return StoredArray(
        shape=tuple(item.shape),
        dtype=dtype,
        axes=tuple(item.dimensions),
        unit=as_text(own.get("units")),
        calendar=as_text(own.get("calendar")),
        packing=packing_of(own, dtype),
        claimed=bytes_of(tuple(item.shape), dtype),
        limit=limit,
    )


def _attributes(item: Any) -> dict[str, Any]:  # noqa: ANN401
    """Return the attributes of a file or variable of either library."""
    if hasattr(item, "ncattrs"):
        return {name: item.getncattr(name) for name in item.ncattrs()}
    return dict(item._attributes)


def _recognises_netcdf(path: Path) -> bool:
    return path.is_file() and is_classic_netcdf(path)


def _read_netcdf(path: Path, name: str, index: Index) -> np.ndarray:
    return _read_several(path, [name], index)[0]


def _read_several(path: Path, names: Sequence[str], index: Index) -> list[np.ndarray]:
    with _opened(path) as file:
        parts = [_read_from(file, path, name, index) for name in names]
    return [check_part(f"{path}, {name}", index, part) for name, part in zip(names, parts, strict=True)]


def _read_from(file: Any, path: Path, name: str, index: Index) -> np.ndarray:  # noqa: ANN401 (a file of either library)
    if name not in file.variables:
        raise not_read(path, name, "it no longer exists")
    try:
        variable = file.variables[name]
        part = np.asarray(variable[index] if hasattr(variable, "ncattrs") else variable.data[index])
        # A copy, since SciPy's arrays are views of a mapping that is about to be closed.
        return part.astype(part.dtype.newbyteorder("="))
    except (IndexError, OSError, RuntimeError, ValueError) as error:
        raise not_read(path, name, one_line(error)) from error


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Map a file into memory for as long as the block lasts, so that processes share nothing."""
    if first_bytes(path).startswith(b"CDF\x05"):
        with _opened_cdf5(path) as file:
            yield file
        return
    from scipy.io import netcdf_file  # late: a third of the time that all readers take to import

    try:
        file = netcdf_file(path, "r", mmap=True)
    # Errors that SciPy was seen to raise when the header or the data end too early.
    except (OSError, ValueError, TypeError, IndexError, KeyError) as error:
        raise DataError(
            f"{path} cannot be read as classic netCDF ({one_line(error)}); it is truncated or corrupt: copy it again."
        ) from error
    with file:
        yield file


@contextmanager
def _opened_cdf5(path: Path) -> Iterator[Any]:
    try:
        import netCDF4
    except ImportError:
        raise DataError(
            f"{path} is netCDF CDF-5, which needs the netCDF library: pip install netCDF4; or nccopy -k netCDF-4 IN OUT."
        ) from None
    try:
        with netCDF4.Dataset(str(path), "r") as file:
            file.set_auto_maskandscale(False)
            _check_size(path, file)
            yield file
    except DataError:
        raise
    except (OSError, RuntimeError, ValueError, AttributeError) as error:  # e.g. a name whose bytes are no text
        raise DataError(
            f"{path} cannot be read as netCDF CDF-5 ({one_line(error)}); it is truncated or corrupt: copy it again."
        ) from error


def _check_size(path: Path, file: Any) -> None:  # noqa: ANN401
    """Raise DataError if a file is shorter than its variables: past its end, the netCDF library reads zeros."""
    needed = sum(bytes_of(tuple(item.shape), np.dtype(item.dtype)) for item in file.variables.values())
    held = path.stat().st_size
    if needed > held:
        raise DataError(
            f"{path} is truncated: its variables take {needed:,} bytes, the file has {held:,}; copy it again."
        )


NETCDF = FileKind(
    "classic netCDF",
    (".nc", ".cdf"),
    _recognises_netcdf,
    describe_netcdf,
    attributes_of_netcdf,
    _read_netcdf,
    _read_several,
)
