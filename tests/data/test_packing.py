"""Packed and missing values mean what the netCDF library says they mean, whichever kind of file they are in."""

import warnings

import h5py
import netCDF4
import numpy as np
import pytest
import zarr

from matey.data.arrays import KINDS
from matey.data.stored import packing_of
from matey.data.trajectories import DataError

SHAPE = (2, 3, 4)


def raw_values(dtype):
    """Numbers of all of a type's range, small ones among them."""
    if dtype.startswith("f"):
        values = np.linspace(-5, 20, 24)
    else:
        info = np.iinfo(dtype)
        values = np.linspace(info.min, info.max, 24)
        values[:8] = np.arange(-2, 6) if info.min < 0 else np.arange(8)
    return values.reshape(SHAPE).astype(dtype)


CASES = {
    "packed": ("i2", {"scale_factor": 0.01, "add_offset": 3.0}),
    "fill": ("f4", {"_FillValue": np.float32(raw_values("f4")[1, 1, 1])}),
    "missing": ("f4", {"missing_value": np.float32(raw_values("f4")[0, 1, 1])}),
    "several_missing": ("f4", {"missing_value": raw_values("f4")[0, 0, :2]}),
    "valid_range": ("f4", {"valid_range": np.array([0, 10], "f4")}),
    "valid_min_of_packed": ("i2", {"scale_factor": 0.01, "valid_min": np.int16(2)}),
    "valid_max": ("f8", {"valid_max": 3.0}),
    "mark_beyond_the_type": ("i2", {"scale_factor": 0.01, "missing_value": 1e20}),
    "mark_not_a_number": ("i2", {"scale_factor": 0.01, "missing_value": np.nan}),
    "default_fill_of_packed": ("i2", {"scale_factor": 0.01}),
}


@pytest.mark.parametrize("form", ["NETCDF3_CLASSIC", "NETCDF4"])
@pytest.mark.parametrize("case", CASES)
def test_values_are_those_of_the_netcdf_library(case, form, tmp_path):
    dtype, attributes = CASES[case]
    raw = raw_values(dtype)
    if case == "default_fill_of_packed":
        raw[0, 0, 0] = netCDF4.default_fillvals[dtype]
    path = tmp_path / "case.nc"
    with netCDF4.Dataset(path, "w", format=form) as file:
        for name, size in zip("tyx", SHAPE, strict=True):
            file.createDimension(name, size)
        variable = file.createVariable("u", dtype, ("t", "y", "x"), fill_value=attributes.get("_FillValue"))
        variable.setncatts({name: value for name, value in attributes.items() if name != "_FillValue"})
        variable.set_auto_maskandscale(False)
        variable[:] = raw
    with netCDF4.Dataset(path) as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of netCDF4 about marks beyond the type
        expected = np.ma.filled(file["u"][:].astype("f8"), np.nan)
    kind = next(kind for kind in KINDS.values() if kind.recognises(path))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ours = kind.arrays(path)["u"].packing.unpacked(kind.read(path, "u", (slice(None),) * 3))
    np.testing.assert_allclose(ours, expected, rtol=1e-6)
    assert np.isnan(ours).any() == (case != "packed" and "mark_" not in case)


def test_what_nobody_wrote_or_lies_in_other_files_has_a_problem(tmp_path):
    path = tmp_path / "a.h5"
    layout = h5py.VirtualLayout((4, 5), "f8")
    layout[:] = h5py.VirtualSource("source.h5", "u", (4, 5))
    with h5py.File(path, "w") as file:
        file.create_dataset("never", (4, 5), "f4", chunks=(2, 5))
        file.create_dataset("constant", (4, 5), "f4", chunks=(2, 5), fillvalue=3.0)
        file["written"] = np.zeros((4, 5))
        file.create_virtual_dataset("virtual", layout)
    problems = {name: stored.problem for name, stored in KINDS["HDF5"].arrays(path).items() if stored.problem}
    assert problems.keys() == {"never", "virtual"} and problems["never"] == "was never written to: write it again"
    assert "_Unsigned" in packing_of({"_Unsigned": "true"}, np.dtype("i1")).problem


def test_the_fill_value_of_zarr_3_marks_nothing_and_that_of_zarr_2_does(tmp_path):
    for version in (2, 3):
        path = tmp_path / f"{version}.zarr"
        array = zarr.create_array(path, shape=(4, 5), chunks=(2, 5), dtype="f4", fill_value=1.0, zarr_format=version)
        array[:] = np.arange(20).reshape(4, 5)
        kind = next(kind for kind in KINDS.values() if kind.recognises(path))
        ((name, stored),) = kind.arrays(path).items()
        values = stored.packing.unpacked(kind.read(path, name, (slice(None),) * 2))
        assert np.isnan(values).sum() == (version == 2)


def test_a_dataset_compressed_by_a_filter_that_is_not_here_says_which_and_what_to_do(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("packed", data=np.zeros((64, 64), "u1"), chunks=True, compression="lzf")
    path.write_bytes(path.read_bytes().replace(b"\x00\x7d\x08\x00", b"\xe8\xfd\x08\x00"))  # LZF by a number of nobody
    arrays = KINDS["HDF5"].arrays(path)
    assert "is compressed by the filter lzf, which HDF5 does not have here" in arrays["packed"].problem
    with pytest.raises(
        DataError, match=r"a.h5, packed: is compressed .*: pip install hdf5plugin, and set HDF5_PLUGIN_"
    ):
        arrays["packed"].check_readable(f"{path}, packed")
