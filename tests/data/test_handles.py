"""Files that are replaced, rewritten, shortened or removed while a process holds them open."""

import os
import shutil
from functools import partial

import h5py
import numpy as np
import pytest
from scipy.io import netcdf_file

from matey.data import DataError, open_dataset
from tests.support.described_files import describe, flow
from tests.support.small_files import write_swe

DESCRIPTION = flow(fields={"u": "u"}, spacing={"y": 0.5, "x": 0.5}, time_step=1.0, boundary={"y": "wall", "x": "wall"})


def replace(path, write):
    """Put another file in the place of one, as programs do that never leave half a file."""
    other = path.with_name(f"new_{path.name}")
    write(other)
    os.replace(other, path)


def write_long(path, num_frames):
    return write_swe(path, 1, num_frames, seed=num_frames)


def test_a_file_that_was_replaced_is_read_anew(tmp_path):
    path = write_swe(tmp_path / "a.h5", 1, seed=0)
    data = open_dataset(path)
    before = data.read(0, 0, 12)
    replace(path, partial(write_swe, num_trajectories=1, seed=1))
    expected = open_dataset(write_swe(tmp_path / "b.h5", 1, seed=1)).read(0, 0, 12)
    assert not np.array_equal(before, expected)
    np.testing.assert_array_equal(data.read(0, 0, 12), expected)
    replace(path, partial(write_long, num_frames=20))
    data = open_dataset(path)
    assert data.trajectories[0].num_frames == 20 and len(data.read(0, 0, 20)) == 20


def test_a_file_that_was_copied_over_is_described_as_it_is(tmp_path):
    """HDF5 would give what it knows of the file that is still open, which is the same one to the system."""
    path, longer = write_long(tmp_path / "a.h5", 12), write_long(tmp_path / "b.h5", 20)
    open_dataset(path).read(0, 0, 12)
    shutil.copyfile(longer, path)
    np.testing.assert_array_equal(open_dataset(path).read(0, 0, 20), open_dataset(longer).read(0, 0, 20))


def test_a_file_that_was_removed_is_missing_also_where_it_was_open(tmp_path):
    path = write_swe(tmp_path / "a.h5", 1)
    data = open_dataset(path)
    data.read(0, 0, 12)
    path.unlink()
    with pytest.raises(DataError, match=r"a\.h5 does not exist or is no file; it may have been moved while in use"):
        data.read(0, 0, 12)


def write_array(path, num_frames):
    values = np.ones((num_frames, 8, 12), np.float32)
    if path.suffix == ".npy":
        np.save(path, values)
    elif path.suffix == ".h5":
        with h5py.File(path, "w") as file:
            file["u"] = values
    else:
        with netcdf_file(path, "w") as file:
            for axis, size in zip("tyx", values.shape, strict=True):
                file.createDimension(axis, size)
            file.createVariable("u", "f4", ("t", "y", "x"))[:] = values
    return path


def described(path):
    fields = {"u": {} if path.suffix == ".npy" else "u"}
    return open_dataset(describe(path.parent, DESCRIPTION | {"files": path.name, "fields": fields}))


def write_cavity_array(path, num_frames):
    np.save(path, np.ones((num_frames, 8, 12, 4)))


@pytest.mark.parametrize(
    ("name", "write", "open_it"),
    [
        ("a.h5", write_long, open_dataset),
        ("numpy_Bx_0.1_Re_10.npy", write_cavity_array, open_dataset),
        *((f"a.{suffix}", write_array, described) for suffix in ("npy", "nc")),
    ],
)
def test_a_file_that_became_shorter_was_changed(tmp_path, name, write, open_it):
    path = tmp_path / name
    write(path, num_frames=12)
    data = open_it(path)
    replace(path, partial(write, num_frames=5))
    with pytest.raises(DataError, match=r"was changed while it was read: expected .*\(12, .*got \(5, .*; start again"):
        data.read(0, 0, 12)
