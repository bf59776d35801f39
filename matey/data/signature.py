"""Recognises the format of a file by its first bytes, whatever its name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from matey.data.remote.paths import RemotePath
from matey.data.trajectories import DataError

_OF_VTK = (
    "write each array as the grid has it, for point data of pyvista.read({0!r}) as mesh: "
    "numpy.save('u.npy', mesh['u'].reshape(mesh.dimensions[::-1]))"
)
_OF_PYTORCH = "a file of PyTorch; write each tensor: numpy.save('u.npy', torch.load({0!r})['u'].numpy())"
_OF_OPENFOAM = (
    "convert it by foamToVTK, then of each time: mesh = pyvista.read(FILE), numpy.save('p_0000.npy', "
    "mesh.cell_data['p'].reshape(nz, ny, nx)), for a mesh of one block"
)
_OF_AMREX = (
    "put it on one grid with yt: ds = yt.load({0!r}), grid = ds.covering_grid(0, ds.domain_left_edge, ds.domain_dimensions), "
    "numpy.save('density_0000.npy', grid['gas', 'density'].v)"
)
# First bytes of files of other formats, names of these formats, and commands that write files that can be read.
_OTHERS = (
    (
        b"SIMPLE  ",
        "FITS",
        "write each array: numpy.save('u_0000.npy', astropy.io.fits.getdata({0!r}).astype('<f4'))",
    ),
    (
        b"PK\x03\x04",
        "a zip archive, as .npz files and zipped Zarr stores are, which has to be unpacked",
        "of an .npz: for name, array in numpy.load({0!r}).items(): numpy.save(name + '.npy', array)",
    ),
    (
        b"MATLAB 5",
        "a MATLAB file of version 5 to 7",
        "save it with -v7.3, or each array: numpy.save('u.npy', scipy.io.loadmat({0!r})['u'])",
    ),
    (
        b"GRIB",
        "GRIB",
        "convert it with cfgrib: xarray.open_dataset({0!r}, engine='cfgrib').to_netcdf('data.nc')",
    ),
    (b"# vtk Da", "a VTK file", _OF_VTK),
    (b"<VTKFile", "a VTK file", _OF_VTK),
    (b"<?xml ve", "XML, as VTK files are", _OF_VTK),
    (b"/*------", "a file of OpenFOAM", _OF_OPENFOAM),
    (
        b"#std",
        "a file of Nek5000",
        "put it on an even grid with pymech: pymech.dataset.open_dataset({0!r}), interpolate, and to_netcdf('data.nc')",
    ),
    (b"\x0e\x03\x13\x01", "HDF4", "convert it with h4toh5, which The HDF Group offers"),
    (
        (b"\x80\x02", b"\x80\x03", b"\x80\x04\x95", b"\x80\x05\x95"),  # 80 alone may begin a record of Fortran
        "a pickle of Python, as older files of PyTorch are",
        "write each array: numpy.save('u.npy', pickle.load(open({0!r}, 'rb'))['u'])",
    ),
)

# Members of folders of other formats, names of these formats, and commands that write files that can be read.
_FOLDERS = (
    ("system/controlDict", "a case of OpenFOAM", _OF_OPENFOAM),
    ("Level_0", "a plotfile of AMReX", _OF_AMREX),
    (
        "md.idx",
        "a folder of ADIOS2",
        "where it is openPMD, write HDF5: openpmd-pipe --infile {0} --outfile data_%06T.h5",
    ),
)
_BINARY = (".h5", ".hdf5", ".nc", ".nc4", ".npy", ".mat")
_TEXT = (
    "text; write each array: numpy.save('u_0000.npy', numpy.loadtxt({0!r}, usecols=2).reshape(ny, nx)) of columns x, y, u, as "
    "Basilisk's output_field has them, with delimiter=',' and skiprows=1 of a table of commas"
)

_remembered: dict[Path, bytes] = {}  # first bytes of the files that are being opened


@contextmanager
def remembered(path: Path) -> Iterator[None]:
    """Read the first bytes of a file once, however many readers ask for them meanwhile."""
    if path in _remembered:  # by a block around this one
        yield
        return
    _remembered[path] = first_bytes(path) if path.is_file() else b""
    if not _remembered[path]:
        del _remembered[path]  # a missing or empty file is looked at each time
    try:
        yield
    finally:
        _remembered.pop(path, None)


def first_bytes(path: Path) -> bytes:
    """Return the first 8 bytes of a file, or fewer if it has no more.

    Raises:
        DataError: the file is missing or may not be read.
    """
    if path in _remembered:
        return _remembered[path]
    if not path.is_file():
        raise DataError(f"{path} does not exist or is no file; it may have been moved while in use.")
    try:
        with path.open("rb") as file:
            return file.read(8)
    except PermissionError as error:
        raise DataError(f"{path} may not be read by this user; ask its owner for read permission.") from error
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror}); check the disk or file system it lies on."
        ) from error


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


def folder_of(path: Path) -> str:
    """Return the program that wrote a folder without data files, and advice; empty where it is not known."""
    for mark, what, remedy in () if isinstance(path, RemotePath) else _FOLDERS:
        if (path / mark).exists():
            return f"it is {what}; {remedy.format(path.name)}"
    return ""


def beginning(path: Path) -> str:
    """Return the likely format of a file that cannot be read, and advice, for the end of a message."""
    if path.suffix in (".xdmf", ".xmf"):
        return "it is XDMF, which says what is in HDF5 files beside it; give one of these"
    first = first_bytes(path)
    if path.suffix in (".pt", ".pth") and first.startswith(b"PK"):
        return f"it is {_OF_PYTORCH.format(path.name)}"
    for mark, what, remedy in _OTHERS:
        if first.startswith(mark):
            return f"it is {what}; {remedy.format(path.name)}"
    is_text = bool(first) and all(byte in b"\t\n\r" or 32 <= byte < 127 for byte in first)
    if is_text and path.suffix not in _BINARY:  # a web page or Git LFS pointer saved as data is no table
        return f"it is {_TEXT.format(path.name)}"
    begins = f"begins with {first!r}" if first else "is empty"
    return f"it {begins}; give another or copy it again"
