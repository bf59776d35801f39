"""The formats of files of forecasts, by the suffix of the file: netCDF, Zarr and The Well's HDF5."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from matey.mistakes import Mistake, one_line

if TYPE_CHECKING:  # a file's name is checked before slow imports
    import numpy as np
    import xarray

    from matey.data.trajectories import Cells

Mode = Literal["r", "r+"]
WELL_GROUP = "t0_fields"
PARAMETER = "parameter_"
"""Prefix of the names of coordinates that are parameters of the trajectories."""


class FormatError(Mistake):
    """A file of forecasts that cannot be written: one sentence that says what to do."""


class ForecastFile:
    """A file of forecasts that is filled step by step. After `make`, its size and structure no longer change.

    A killed process therefore leaves a file that can be opened, with values up to some place.

    Attributes:
        close: function that hands all written values to the operating system and closes the file.
    """

    def __init__(self, contents: xarray.Dataset, arrays: Any, close: Callable[[], object]) -> None:  # noqa: ANN401
        """Take the arrays ``(trajectory, time, [z,] y, x)`` of an open file by the names of the fields."""
        self._arrays, self.close = [arrays[name] for name in contents.data_vars], close
        self._num_axes = len(contents.sizes) - 2

    def write(self, place: int, step: int, frames: np.ndarray, cells: Cells) -> None:
        """Write frames ``(t, f, z, y, x)`` of a box of cells of one trajectory; ``step`` is the first one's, counted from 0."""
        for number, array in enumerate(self._arrays):
            values = frames[:, number] if self._num_axes == 3 else frames[:, number, 0]
            array[place, step : step + len(frames), *cells[-self._num_axes :]] = values

    def read(self, first: int, end: int, start: int, stop: int, cells: Cells = (slice(None),) * 3) -> np.ndarray:
        """Read written frames ``(b, t, f, z, y, x)`` of a box of cells, by default of all cells."""
        import numpy as np

        box = slice(first, end), slice(start, stop), *cells[-self._num_axes :]
        frames = np.stack([array[box] for array in self._arrays], axis=2)
        return frames if self._num_axes == 3 else frames[:, :, :, None]


class Format(NamedTuple):
    """A way to make and to open files.

    Attributes:
        make: makes a file without values.
        open_file: opens a file that was made, to read (``r``), or to read and write (``r+``).
        needs: package that has to be installed beside xarray.
    """

    make: Callable[[Path, xarray.Dataset], None]
    open_file: Callable[[Path, xarray.Dataset, Mode], ForecastFile]
    needs: str


def coordinates_of(contents: xarray.Dataset) -> tuple[xarray.Dataset, dict[str, dict[str, None]]]:
    """Return a data set without its fields, and the encoding by which xarray writes it: without values for missing ones."""
    bare = contents.drop_vars([*contents.data_vars]).reset_coords()
    return bare, {str(name): {"_FillValue": None} for name in bare.variables}


def make_netcdf(path: Path, contents: xarray.Dataset) -> None:
    """Make netCDF-4 by the CF conventions, for xarray, ncdump, ParaView and the tools of climate research."""
    import netCDF4
    import numpy as np

    bare, encoding = coordinates_of(contents)
    bare.to_netcdf(path, engine="netcdf4", encoding=encoding)
    missing = np.float32(np.nan)
    with netCDF4.Dataset(path, "a") as file:
        for name, field in contents.data_vars.items():
            variable = file.createVariable(name, "f4", field.dims, contiguous=True, fill_value=missing)
            variable.setncatts(field.attrs)
            variable[(-1,) * field.ndim] = missing  # allocates all of its disk space


def open_netcdf(path: Path, contents: xarray.Dataset, mode: Mode) -> ForecastFile:
    """Open a file of `make_netcdf`."""
    import netCDF4

    file = netCDF4.Dataset(path, mode)
    file.set_auto_mask(False)
    return ForecastFile(contents, file, file.close)


CHUNK = 2**20
"""Largest number of cells in a chunk, unless a single layer has more; writing part of a chunk rewrites the whole."""


def make_zarr(path: Path, contents: xarray.Dataset) -> None:
    """Make a Zarr store of format 2, which xarray opens as a data set."""
    import numpy as np
    import zarr

    bare, encoding = coordinates_of(contents)
    bare.to_zarr(path, mode="w", zarr_format=2, consolidated=False, encoding=encoding)
    group = zarr.open_group(path, mode="r+", zarr_format=2)
    for name, field in contents.data_vars.items():
        _, num_steps, num_layers, *layer = field.shape
        steps = min(num_steps, max(1, CHUNK // 4 // math.prod(field.shape[2:])))
        chunks = (1, steps, min(num_layers, max(1, CHUNK // math.prod(layer))), *layer)
        about = {"_ARRAY_DIMENSIONS": [*field.dims], **field.attrs}
        made = {"shape": field.shape, "chunks": chunks, "dtype": "f4", "fill_value": np.nan}
        group.create_array(str(name), **made, attributes=about)
    zarr.consolidate_metadata(path, zarr_format=2)


def open_zarr(path: Path, contents: xarray.Dataset, mode: Mode) -> ForecastFile:
    """Open a store of `make_zarr`; there is nothing to close, since every chunk is a file, written at once."""
    import zarr

    return ForecastFile(contents, zarr.open_group(path, mode=mode, zarr_format=2), lambda: None)


def make_well(path: Path, contents: xarray.Dataset) -> None:
    """Make The Well's HDF5 layout (`matey.data.to_the_well`), which its reader and ``matey.open_dataset`` open as trajectories.

    Every field is stored in ``t0_fields``, also each component of a vector.
    """
    import h5py
    import numpy as np

    from matey.data.to_the_well import KINDS, add_fields, add_scalars, begin

    *_, dims = (field.dims[2:] for field in contents.data_vars.values())
    axes = dict(zip("xyz", reversed(dims), strict=False))
    places = {axis: contents[name].values for axis, name in axes.items()}
    ends = {axis: KINDS.get(contents[name].attrs["boundary"]) for axis, name in axes.items()}
    parameters = {
        str(name).removeprefix(PARAMETER): each.values
        for name, each in contents.coords.items()
        if str(name).startswith(PARAMETER)
    }
    with h5py.File(path, "w") as file:
        file.attrs.update(contents.attrs)
        # The layout cannot describe an axis whose two ends differ.
        alike = {axis: kind for axis, kind in ends.items() if kind is not None}
        begin(file, contents.attrs["system"], contents.sizes["trajectory"], contents["time"].values, places, alike)
        add_scalars(file, {}, parameters)
        add_fields(file, 0, map(str, contents.data_vars), num_frames=contents.sizes["time"], fill=np.nan)
        for field in (file[WELL_GROUP][name] for name in contents.data_vars):
            field[(-1,) * field.ndim] = np.nan  # allocates all of its disk space


def open_well(path: Path, contents: xarray.Dataset, mode: Mode) -> ForecastFile:
    """Open a file of `make_well`."""
    import h5py

    file = h5py.File(path, mode, locking="best-effort")
    return ForecastFile(contents, {name: _Turned(file[WELL_GROUP][name]) for name in contents.data_vars}, file.close)


class _Turned:
    """A view of a field ``(trajectory, time, x, y, [z])`` on disk with its grid axes in reverse order."""

    def __init__(self, field: Any) -> None:  # noqa: ANN401 (h5py.Dataset)
        self._field = field

    def __getitem__(self, box: tuple[slice, ...]) -> np.ndarray:
        values: np.ndarray = self._field[*box[:2], *box[:1:-1]]
        return values.transpose(0, 1, *range(values.ndim - 1, 1, -1))

    def __setitem__(self, box: tuple[int | slice, ...], values: np.ndarray) -> None:
        self._field[*box[:2], *box[:1:-1]] = values.transpose(0, *range(values.ndim - 1, 0, -1))


WELL = Format(make_well, open_well, "h5py")
FORMATS = {
    ".nc": Format(make_netcdf, open_netcdf, "netCDF4"),
    ".zarr": Format(make_zarr, open_zarr, "zarr"),
    ".h5": WELL,
    ".hdf5": WELL,
}
"""The formats by the suffix of a file: netCDF-4, Zarr and The Well's HDF5."""


def check_path(path: Path, *, overwrite: bool, inputs: Sequence[Path] = ()) -> None:
    """Raise FormatError if a file of forecasts cannot be written.

    Args:
        path: the file. Its suffix must name a format, and the package for the format must be installed.
        overwrite: whether an existing file may be replaced.
        inputs: files that the forecasts are made from, which are never overwritten.
    """
    if any(path.exists() and source.exists() and path.samefile(source) for source in inputs):
        raise FormatError(f"{path} is data that these forecasts are made from; choose another name.")
    if path.suffix not in FORMATS:
        raise FormatError(
            f"{path} ends in {path.suffix or 'no suffix'}; expected .nc (netCDF), .zarr (Zarr), or .h5 or .hdf5 (The Well)."
        )
    if package := next((each for each in ("xarray", FORMATS[path.suffix].needs) if find_spec(each) is None), None):
        raise FormatError(
            f"{path} needs the package {package}, which is not installed: pip install 'matey-pde[forecast]'."
        )
    if path.exists() and not overwrite:
        raise FormatError(f"{path} exists already; choose another name, or --overwrite it (overwrite=True).")
    if path.is_dir() and any(path.iterdir()) and not any((path / name).is_file() for name in ("zarr.json", ".zgroup")):
        raise FormatError(f"{path} is a folder that holds other files, which are kept; choose another name.")


@contextmanager
def errors_of_disks() -> Iterator[None]:
    """Raise OSError where netCDF and HDF5 say no more than that they failed, as they do where a disk is full."""
    try:
        yield
    except RuntimeError as error:
        raise OSError(f"{one_line(error)}, as on a full disk") from error


def film_problem(path: Path) -> str:
    """Return the reason why a film of this name cannot be written; empty if it can."""
    if path.suffix not in (".gif", ".mp4"):
        return f"{path} ends in {path.suffix or 'no suffix'}; a film is a .gif or an .mp4."
    if path.suffix == ".mp4" and ffmpeg() is None:
        return f"{path} needs ffmpeg, which is not installed: pip install 'matey-pde[forecast]', or write a .gif."
    return ""


def ffmpeg() -> str | None:
    """Return the path of the system's or a package's ffmpeg; None if there is neither."""
    found = shutil.which("ffmpeg")
    if found is None and find_spec("imageio_ffmpeg") is not None:
        found = import_module("imageio_ffmpeg").get_ffmpeg_exe()
    return found
