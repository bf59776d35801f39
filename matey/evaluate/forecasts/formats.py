"""The formats of files of forecasts by suffix, and their common interface; each format has a module beside this one."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from matey.mistakes import Mistake, one_line

if TYPE_CHECKING:  # a file's name is checked before slow imports
    import numpy as np

    from matey.data.trajectories import Cells
    from matey.evaluate.forecasts.contents import Contents

FORMATS = {".nc": "netcdf", ".zarr": "zarr_store", ".h5": "the_well", ".hdf5": "the_well"}
"""Modules of the formats by the suffix of a file: netCDF-4, Zarr and The Well's HDF5."""

NEEDED = {".nc": "netCDF4", ".zarr": "zarr"}
"""Packages that a format needs in addition to those installed with MATEY."""


class FormatError(Mistake):
    """A file of forecasts that cannot be written: one sentence that says what to do."""


class ForecastFile:
    """A file of forecasts that is filled step by step. After `make`, its size and structure no longer change.

    A killed process therefore leaves a file that can be opened, with values up to some place.

    Attributes:
        close: function that hands all written values to the operating system and closes the file.
    """

    def __init__(
        self,
        contents: Contents,
        arrays: Any,  # noqa: ANN401
        close: Callable[[], object],
    ) -> None:
        """Take the arrays ``(trajectory, time, [z,] y, x)`` of an open file by the names of the fields."""
        self._contents, self._arrays, self.close = contents, arrays, close

    def write(self, place: int, step: int, frames: np.ndarray, cells: Cells) -> None:
        """Write frames ``(t, f, z, y, x)`` of a box of cells of one trajectory; ``step`` is the first one's, counted from 0."""
        for name, values in self._contents.values_of(frames).items():
            self._arrays[name][place, step : step + len(frames), *self._contents.box(cells)] = values

    def read(self, first: int, end: int, start: int, stop: int, cells: Cells | None = None) -> np.ndarray:
        """Read written frames ``(b, t, f, z, y, x)`` of a box of cells, by default of all cells."""
        box = slice(first, end), slice(start, stop), *self._contents.box(cells)
        return self._contents.frames_of({name: self._arrays[name][box] for name in self._contents.fields})


class Format(Protocol):
    """A module that makes and opens files of one format."""

    def make(self, path: Path, contents: Contents, stretch: int) -> None:
        """Make a file without values, for frames that come ``stretch`` at a time."""

    def open_file(self, path: Path, contents: Contents, mode: Literal["r", "r+"]) -> ForecastFile:
        """Open a file that `make` has made, to read (``r``), or to read and write (``r+``)."""

    def layers_together(self, contents: Contents) -> int | None:
        """Return how many layers along the slowest axis of the grid are always written together, by one process at a time.

        None: only one process at a time may have the file open to write.
        """


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
    package = NEEDED.get(path.suffix)
    if package is not None and find_spec(package) is None:
        raise FormatError(
            f"{path} needs the package {package}, which is not installed: pip install 'matey-pde[forecast]', or write to .h5."
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


def format_of(path: Path) -> Format:
    """Return the module of a file's format; see `check_path`."""
    return import_module(f"matey.evaluate.forecasts.{FORMATS[path.suffix]}")


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
