"""The cavity's two layouts hold the same trajectory; what a name says, and what is refused."""

import numpy as np
import pytest

from matey.data import DataError, open_dataset
from tests.support.layout_files import NUM_FRAMES, NUM_X, NUM_Y, write_cavity, write_cavity_array


def test_the_array_says_by_its_name_what_it_does_not_hold(tmp_path):
    (about,) = open_dataset(write_cavity_array(tmp_path / "numpy_Bx_0.10_Re_100.npy")).trajectories
    assert about.parameters == {"Bx": 0.1, "Re_m": 100.0} and about.time_step == 0.01
    assert about.spacing == (1.0, 1 / (NUM_Y - 1), 1 / (NUM_X - 1)) and about.boundary == ("none", "wall", "wall")


def test_our_own_file_holds_grid_times_and_numbers(tmp_path):
    (about,) = open_dataset(write_cavity(tmp_path / "a.h5")).trajectories
    assert about.parameters == {"Bx": 0.25, "Re": 100.0, "Re_m": 50.0} and about.time_step == 0.5
    assert about.spacing == (1.0, 1 / 8, 1 / 4) and about.boundary == ("none", "wall", "wall")


def test_both_layouts_are_one_data_set(tmp_path):
    write_cavity(tmp_path / "a.h5")
    write_cavity_array(tmp_path / "numpy_Bx_0.10_Re_100.npy")
    joined = open_dataset(tmp_path)
    assert joined.num_trajectories == 2
    np.testing.assert_array_equal(joined.read(0, 0, NUM_FRAMES), joined.read(1, 0, NUM_FRAMES))


@pytest.mark.parametrize(
    "values", [np.zeros((6, 8, 12, 3)), np.zeros((8, 12, 4)), np.zeros((0, 8, 12, 4)), np.zeros((6, 8, 12, 4), bool)]
)
def test_an_array_of_another_shape_or_type_is_refused(tmp_path, values):
    path = tmp_path / "numpy_Bx_0.10_Re_100.npy"
    np.save(path, values)
    with pytest.raises(DataError, match=r"npy: expected an array \(t, y, x, 4\) of velocity_x, .*write the file again"):
        open_dataset(path)
