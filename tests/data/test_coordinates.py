"""Sets read the coordinates and times that their files have, and none where trajectories differ."""

from functools import partial

import h5py
import numpy as np
import pytest

from matey.data import open_dataset
from matey.data.splits import Split
from matey.data.to_the_well import write_the_well as convert
from matey.data.trajectories import DataError
from matey.data.views import JoinedTrajectories
from tests.support.layout_files import (
    NUM_FRAMES,
    NUM_X,
    NUM_Y,
    write_cavity,
    write_cavity_array,
    write_compressible,
    write_incompressible,
    write_the_well,
)
from tests.support.small_files import write_swe

FRAMES, X, Y = (np.arange(size) for size in (NUM_FRAMES, NUM_X, NUM_Y))


@pytest.mark.parametrize(
    ("write", "name", "expected"),
    [
        (write_compressible, "a.h5", {"time": FRAMES / 32, "y": (Y + 0.5) / 16, "x": (X + 0.5) / 4}),
        (write_incompressible, "a.h5", {"time": FRAMES[:-1] / 64, "y": None, "x": None}),
        (write_cavity, "a.h5", {"time": FRAMES / 2, "y": Y / 8, "x": X / 4}),
        (write_cavity_array, "numpy_Bx_0.25_Re_50.npy", {"time": None, "y": Y / 7 - 0.5, "x": X / 11 - 0.5}),
        (write_the_well, "a.h5", {"time": FRAMES / 4, "y": Y / 4, "x": X / 2}),
    ],
)  # fmt: skip
def test_the_coordinates_of_each_layout_are_those_of_its_file(tmp_path, write, name, expected):
    data = open_dataset(write(tmp_path / name))
    for axis, values in expected.items():
        found = data.coordinates(axis, [data.num_trajectories - 1])
        assert (found is None) == (values is None)
        if values is not None:
            np.testing.assert_allclose(found.values, values, atol=1e-12)


@pytest.mark.parametrize(
    ("write", "name"),
    [
        (write_compressible, "x-coordinate"),
        (write_cavity, "x"),
        (partial(write_swe, num_trajectories=1), "0000/grid/x"),
    ],
)
def test_graded_grids_are_refused_as_spectra_and_divergences_would_be_wrong(tmp_path, write, name):
    path = write(tmp_path / "a.h5")
    with h5py.File(path, "r+") as file:
        file[name][-1] *= 1.05
    with pytest.raises(DataError, match="expected evenly spaced coordinates, .*: resample the data on an even grid"):
        open_dataset(path)


def test_files_of_other_lengths_share_coordinates_and_those_of_other_places_do_not(tmp_path):
    data = JoinedTrajectories([open_dataset(write_swe(tmp_path / f"{n}.h5", 2, num_frames=n)) for n in (5, 8)])
    with h5py.File(tmp_path / "8.h5", "a") as file:
        file["0001/grid/y"][:] += 1
    times = data.coordinates("time", range(4))
    np.testing.assert_array_equal(times.values, (np.arange(8) * 0.01).astype("f4"))
    assert data.coordinates("y", [0, 1, 2]) is not None and data.coordinates("y", range(4)) is None


def test_converted_data_lies_where_it_lay(tmp_path):
    data = open_dataset(write_swe(tmp_path / "a.h5", 2))
    with h5py.File(tmp_path / "a.h5", "a") as file:
        for name in file:
            file[f"{name}/grid/t"][:] += 3
    convert(data, Split((0,), (), (1,)), tmp_path / "out")
    well = open_dataset(tmp_path / "out")
    for axis in ("time", "y", "x"):
        found, own = (each.coordinates(axis, [0, 1]).values for each in (well, data))
        np.testing.assert_array_equal(found, own)
