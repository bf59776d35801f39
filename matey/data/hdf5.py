"""Opens, describes and reads HDF5 files, and so netCDF-4, and explains errors in plain words.

Describing a file opens and closes it; reading keeps it open, see `Handles`. Links, second names and virtual datasets
are not followed.
"""

from __future__ import annotations

import os
import resource
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import yaml
from h5py.h5z import filter_avail

from matey.data.coordinates import MOST_COMPONENTS, UNEVEN_SPACE, even_step, mean_step, role_of
from matey.data.remote import RemoteFile, RemotePath
from matey.data.stored import READ, FileKind, StoredArray, as_text, not_read, packing_of
from matey.data.trajectories import Coordinates, DataError, Reader, TrajectorySet
from matey.mistakes import one_line


def first_bytes(path: Path) -> bytes:
    """Return the first 8 bytes of a file, or fewer if it has no more.

    Raises:
        DataError: the file is missing or may not be read.
    """
    if path in _firsts:
        return _firsts[path]
    if not path.is_file():
        raise DataError(f"{path} does not exist or is no file; it may have been moved while in use.")
    try:
        with path.open("rb") as file:
            found = file.read(8)
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror}); check its permissions, and the disk that it lies on."
        ) from error
    if path in _shared:
        _firsts[path] = found
    return found


def is_classic_netcdf(path: Path) -> bool:
    """Whether a file begins as all classic netCDF files do; netCDF-4 files are HDF5."""
    return _begins(path, b"CDF", "a classic netCDF file")


def is_npy(path: Path) -> bool:
    """Whether a file begins as all ``.npy`` files do."""
    return _begins(path, b"\x93NUMPY", "an array of NumPy's")


def _begins(path: Path, mark: bytes, what: str) -> bool:
    """Whether a file begins with the mark of a format that is mapped into memory, and so has to lie on this machine."""
    is_so = first_bytes(path).startswith(mark)
    if is_so and isinstance(path, RemotePath):
        raise DataError(f"{path} is {what}, which is not read from afar, as HDF5, netCDF-4 and Zarr are; download it.")
    return is_so


def beginning(path: Path) -> str:
    """Return the first bytes of a file that cannot be read, and advice, for the end of a message."""
    if not (first := first_bytes(path)):
        return "it is empty; give another or copy it again"
    return (
        f"it begins with {first!r}; copy it again, or convert it as docs/own_data.md says for files of other programs"
    )


# HDF5 takes 0.5 MiB of memory for every file that is open, and so 1 GiB for these.
_MAX_OPEN_FILES = 2048

_Version = tuple[int, int, int, int]


class Handles:
    """The files that this process keeps open, least recently used first."""

    def __init__(self) -> None:
        """Keep no file yet."""
        self._process = os.getpid()
        self._files: OrderedDict[Path, tuple[h5py.File, _Version | None]] = OrderedDict()

    def get(self, path: Path) -> h5py.File:
        """Return the handle of ``path``, opening it if need be."""
        version = self.close_if_changed(path)
        if path not in self._files:
            self._files[path] = open_hdf5(path), version
        self._files.move_to_end(path)
        # Descriptors are needed for other ranks and for processes that read ahead, too.
        if len(self._files) > min(_MAX_OPEN_FILES, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4):
            self._files.popitem(last=False)[1][0].close()
        return self._files[path][0]

    def close_if_changed(self, path: Path) -> _Version | None:
        """Close the handle of a file that was replaced, rewritten or removed, and return the file's version.

        HDF5 gives a file that it holds open to whoever opens it again: what it knows of the earlier content must go first.
        """
        if self._process != os.getpid():
            self.close_all()
            self._process = os.getpid()
        version = _version_of(path)
        if path in self._files and (version is None or version != self._files[path][1]):
            self._files.pop(path)[0].close()
        return version

    def close_all(self) -> None:
        """Close all files."""
        for file, _ in self._files.values():
            file.close()
        self._files.clear()


def _version_of(path: Path) -> _Version | None:
    """Return numbers that differ between the versions of a file; None where it is gone, and opening it says so."""
    try:
        about = path.stat()
    except OSError:
        return None
    return about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns


_SIGNATURE = b"\x89HDF\r\n\x1a\n"

# Errors that h5py was seen to raise after bytes of the metadata were overwritten, or where datasets or axes were missing;
# AttributeError comes from a link that leads nowhere, or a group in place of a dataset.
_SPOILT = (OSError, RuntimeError, LookupError, TypeError, ValueError, AttributeError, MemoryError, yaml.YAMLError)

# Files that are being looked at, and how they begin, see `opened_once`.
_shared: dict[Path, h5py.File | None] = {}
_firsts: dict[Path, bytes] = {}

# Bytes that HDF5 reads at once where rows are shorter. The default, 64 KiB, is more than a layer of a small field, so a rank
# would also read the gaps between the rows of its part. Much less sends a parallel file system too many requests.
_SIEVE_BYTES = 2**14


def is_hdf5(path: Path) -> bool:
    """Whether a file is HDF5; most begin with its signature, others have a user block before it."""
    return path.is_file() and (first_bytes(path) == _SIGNATURE or h5py.is_hdf5(path))


@contextmanager
def opened_once(path: Path) -> Iterator[None]:
    """Open a file at most once, and once more for how it begins, however many readers look at it meanwhile."""
    if path in _shared:
        yield
        return
    _shared[path] = None
    try:
        yield
    finally:
        file = _shared.pop(path)
        _firsts.pop(path, None)
        if file is not None:
            file.close()


def open_hdf5(path: Path) -> h5py.File:
    """Open ``path`` for reading; the caller closes it.

    Raises:
        DataError: the file is missing, unreadable, truncated, or not HDF5.
    """
    if not path.is_file():
        raise DataError(f"{path} does not exist or is no file; it may have been moved while in use.")
    _handles.close_if_changed(path)
    try:  # parallel file systems are often mounted without flock; nobody writes here, so a lock is not needed
        if isinstance(path, RemotePath):
            return h5py.File(RemoteFile(str(path)), "r", locking="best-effort")
        access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
        access.set_file_locking(True, True)
        access.set_sieve_buf_size(_SIEVE_BYTES)
        return h5py.File(h5py.h5f.open(os.fsencode(path), h5py.h5f.ACC_RDONLY, fapl=access))
    except OSError as error:
        if not is_hdf5(path):
            raise DataError(f"{path} is not an HDF5 file: {beginning(path)}.") from None
        remedy = "download or copy it again"
        if "lock file" in str(error) or "open for write" in str(error):  # a mark stays if its program was killed
            remedy = "wait until its program has closed it; if that was killed, run h5clear -s on the file"
        raise DataError(f"{path} cannot be opened as HDF5 ({one_line(error)}); {remedy}.") from error


@contextmanager
def described_hdf5(path: Path) -> Iterator[h5py.File]:
    """Open ``path`` to look at its groups, shapes and attributes, and close it again.

    Raises:
        DataError: the file cannot be opened, see ``open_hdf5``, or turns out to be corrupt while it is looked at.
    """
    if path in _shared:
        _shared[path] = _shared[path] or open_hdf5(path)
    with nullcontext(_shared[path]) if path in _shared else open_hdf5(path) as file:
        try:
            yield file
        except DataError:
            raise
        except _SPOILT as error:
            raise DataError(
                f"{path} cannot be described ({one_line(error)}); the file is corrupt: download or copy it again."
            ) from error


def attribute_of(item: h5py.HLObject, name: str, default: Any = None) -> Any:  # noqa: ANN401 (a number, text, or several)
    """Return an attribute of numbers or texts, or the default: h5py 3.16 crashes on lists of region references."""
    try:
        kind = item.attrs.get_id(name).dtype
    except (KeyError, TypeError):  # there is none, or it is of a type that NumPy does not have
        return default
    return item.attrs[name] if kind.base.kind in "fiubcS" or h5py.check_string_dtype(kind) else default


def attributes_of(item: h5py.HLObject) -> dict[str, Any]:
    """Return all attributes of numbers or texts, see `attribute_of`."""
    return {name: value for name in item.attrs if (value := attribute_of(item, name)) is not None}


def read_part(path: Path, dataset: str, index: tuple[int | slice, ...]) -> np.ndarray:
    """Read a part of a dataset, and nothing else of it; ``index`` has a number or a slice for each of its first axes.

    Raises:
        DataError: the file cannot be opened, see ``open_hdf5``; or the dataset is gone or corrupt.
    """
    file = _handles.get(path)
    # No cache of chunks or trajectories: windows are drawn uniformly from more data than memory holds, and one core
    # reads 250 windows of 10 + 1 frames per CPU second from 101 x 128 x 128 x 2 of noise, lzf, chunks (13, 16, 32, 1).
    try:
        return file[dataset][index]
    except DataError:  # of a remote file that cannot be reached any more
        raise
    except _SPOILT as error:
        raise not_read(path, dataset, one_line(error)) from error


def check_values(item: h5py.HLObject | None) -> None:
    """Raise DataError if a dataset has no values that can be read; groups pass, and so does what is missing."""
    if isinstance(item, h5py.Dataset) and item.shape is not None and (problem := _problem(item)):
        raise DataError(f"{item.file.filename}, {item.name}: {problem}.")


def _problem(item: h5py.Dataset) -> str:
    """Return why a dataset would not be read, or as zeros that nobody wrote, or from any file; empty if it would."""
    created = item.id.get_create_plist()
    if item.is_virtual or item.external:
        return "keeps its values in other files, and any file could be named there: h5repack it where it was written"
    has_fill = created.fill_value_defined() == h5py.h5d.FILL_VALUE_USER_DEFINED
    if item.size and not has_fill and not item.id.get_storage_size():
        return "was never written to: write it again"
    if item.dtype.kind == "O" and not h5py.check_string_dtype(item.dtype):
        return "holds neither numbers nor texts: leave it out"
    for code, _, _, name in (created.get_filter(number) for number in range(created.get_nfilters())):
        if item.size and not filter_avail(code):
            return (
                f"is compressed by the filter {name.decode('utf-8', 'replace') or code}, which HDF5 does not have here: pip "
                "install hdf5plugin, and set HDF5_PLUGIN_PATH to hdf5plugin.PLUGIN_PATH; or h5repack -f GZIP=4 IN OUT where "
                "it can be read"
            )
    return ""


_handles = Handles()


_NO_VARIABLE = b"This is a netCDF dimension but not a netCDF variable"


def arrays_of(path: Path) -> dict[str, StoredArray]:
    """Return the datasets of a file, those in groups as ``group/name``.

    Raises:
        DataError: the file cannot be read, see `described_hdf5`.
    """
    found: dict[str, StoredArray] = {}

    def add(name: str, item: h5py.HLObject) -> None:
        if not isinstance(item, h5py.Dataset) or item.shape is None or _is_no_variable(item):
            return
        found[name] = StoredArray(
            shape=item.shape,
            dtype=np.dtype(item.dtype),
            axes=_axes(item),
            unit=as_text(attribute_of(item, "units")),
            calendar=as_text(attribute_of(item, "calendar")),
            packing=packing_of({key: attribute_of(item, key) for key in READ}, np.dtype(item.dtype)),
            problem=_problem(item),
        )

    with described_hdf5(path) as file:
        file.visititems(add)
    return found


def _axes(item: h5py.Dataset) -> tuple[str, ...]:
    """Return the names of a dataset's axes, from the scales or labels that netCDF-4 and h5py give them.

    A label counts where the names of scales do not tell the kind of axis: Dedalus gives the axis labelled ``x`` the scale
    ``x/1.0``. One axis of components may be without a name where all others have one.
    """
    labels = map(as_text, _of_axes(item, "DIMENSION_LABELS", h5py.check_string_dtype))
    names = [_name_of(*each) for each in zip(_scales_of(item), labels, strict=True)]
    nameless = [number for number, name in enumerate(names) if not name]
    is_component = len(nameless) == 1 and nameless[0] > 0 and item.shape[nameless[0]] <= MOST_COMPONENTS
    return tuple(names) if not nameless or (is_component and len(names) > 2) else ()


def _name_of(scales: Sequence[h5py.Dataset], label: str) -> str:
    names = [str(name or "").rpartition("/")[2] for name in (*(scale.name for scale in scales), label)]
    return next(filter(role_of, names), next(filter(None, names), ""))


def _scales_of(item: h5py.Dataset) -> list[list[h5py.Dataset]]:
    """Return the scales of each axis; none where the dataset was copied without them, and refers to what is not in this file.

    HDF5's own functions, which ``item.dims`` calls, trust the types of these attributes, and a wrong one corrupts memory.
    """
    try:
        of_axes = [[item.file[each] for each in own] for own in _of_axes(item, "DIMENSION_LIST", _is_references)]
    except (KeyError, RuntimeError, ValueError):
        return [[]] * item.ndim
    return [[*filter(_is_scale, scales)] for scales in of_axes]


def _is_scale(item: h5py.HLObject) -> bool:
    return isinstance(item, h5py.Dataset) and as_text(attribute_of(item, "CLASS")) == "DIMENSION_SCALE"


def _is_references(kind: np.dtype) -> bool:
    each = h5py.check_vlen_dtype(kind)
    return each is not None and h5py.check_ref_dtype(each) is h5py.Reference


def _of_axes(item: h5py.Dataset, name: str, is_right: Callable[[np.dtype], object]) -> Sequence[Any]:
    """Return an attribute's values, one for each axis; empty ones where it is missing, or of another shape or type."""
    found = item.attrs.get_id(name) if name in item.attrs else None
    is_whole = found is not None and found.shape == (item.ndim,) and is_right(found.dtype)
    return item.attrs[name] if is_whole else [""] * item.ndim


def _is_no_variable(item: h5py.Dataset) -> bool:
    """Whether a dataset only stands for a dimension of a netCDF file, without coordinates."""
    label = attribute_of(item, "NAME", b"")
    return isinstance(label, bytes) and label.startswith(_NO_VARIABLE)


def _attributes(path: Path, name: str) -> dict[str, Any]:
    with described_hdf5(path) as file:
        return attributes_of(file[name] if name else file)


HDF5 = FileKind("HDF5", (".h5", ".hdf5", ".nc", ".nc4", ".mat"), is_hdf5, arrays_of, _attributes, read_part)


# The pure-Python loader takes ten times as long, which shows at 1000 groups a file.
_YamlLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def hdf5_reader(layout: str, holds: Callable[[h5py.File], bool], open: Callable[[Path], TrajectorySet]) -> Reader:
    """Return the reader of a layout of HDF5; ``holds`` tells from the content of a file whether it has this layout."""

    def recognises(path: Path) -> bool:
        if not is_hdf5(path):
            return False
        with described_hdf5(path) as file:
            return holds(file)

    return Reader(layout, (".h5", ".hdf5"), recognises, open)


def stored_coordinates(path: Path, name: str, index: tuple[int | slice, ...] = (slice(None),)) -> Coordinates:
    """Read coordinates without a unit from a dataset of an HDF5 file, or from a part of it.

    Raises:
        DataError: see `read_part`.
    """
    return Coordinates(read_part(path, name, index).astype(np.float64), "1")


def stored_step(file: h5py.File, name: str, size: int, *, of_time: bool = False, or_more: bool = False) -> float:
    """Return the spacing of the coordinates in dataset ``name``, which must belong to ``size`` cells or frames.

    Args:
        file: the file that holds the dataset.
        name: path of the dataset in the file.
        size: number of cells or frames that the coordinates belong to.
        of_time: whether these are times, of which the mean step counts; cells must be evenly spaced.
        or_more: whether the dataset may hold more coordinates than ``size``; the surplus is ignored.

    Raises:
        DataError: the dataset is missing, has another size, does not increase, or has cells of several sizes.
    """
    coordinates = file.get(name)
    check_values(coordinates)
    shape = coordinates.shape if isinstance(coordinates, h5py.Dataset) else None
    if shape is None or len(shape) != 1 or shape[0] < size or (shape[0] > size and not or_more):
        came = "none" if coordinates is None else str(shape or "a group")
        raise DataError(
            f"{file.filename}, {name}: expected {size} coordinates to go with the fields, got {came}; "
            f"check the order of the grid axes in the fields."
        )
    places, label = coordinates[:size], f"{file.filename}, {name}"
    if of_time:
        return mean_step(places, label)
    return even_step(places, label, UNEVEN_SPACE, "resample the data on an even grid")


def read_config(item: h5py.Group) -> dict[str, Any]:
    """Return the mapping in PDEBench's attribute ``config`` of a file or group, empty if there is none."""
    text = attribute_of(item, "config")
    if isinstance(text, bytes):
        text = text.decode()  # also numpy's bytes_, which h5py gives for fixed-length strings and YAML refuses
    if not isinstance(text, str):
        return {}
    config = yaml.load(text, Loader=_YamlLoader)
    return config if isinstance(config, dict) else {}


def numbers(entries: Mapping[str, Any], keys: Iterable[str]) -> dict[str, float]:
    """Return the entries that are numbers; OmegaConf writes ``???`` for one never set, YAML reads ``1e-3`` as text."""
    found = {}
    for key in keys:
        try:
            found[key] = float(entries[key])
        except (KeyError, TypeError, ValueError):
            continue
    return found
