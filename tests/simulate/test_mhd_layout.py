"""What a reader finds in the files of MHD cavities."""

import h5py
import numpy as np
import pytest

from matey.simulate.mhd_cavity import draw_cavity, solve
from matey.simulate.mhd_layout import array_path, config, read_config, write_array, write_trajectory


@pytest.fixture(scope="module")
def frames():
    return solve([4], resolution=20, num_frames=3, interval=0.5)[0].numpy()


def test_hdf5_says_what_it_holds(tmp_path, frames):
    write_trajectory(tmp_path / "a.h5", 4, frames, interval=0.5)
    with h5py.File(tmp_path / "a.h5") as file:
        cavity = draw_cavity(4)
        assert file.attrs["system"] == "mhd_cavity"
        assert (file.attrs["Bx"], file.attrs["Re"], file.attrs["Re_m"]) == (
            cavity.field,
            cavity.reynolds,
            cavity.magnetic_reynolds,
        )
        assert {name: (item.shape, item.dtype) for name, item in file.items()} == {
            "velocity": ((3, 20, 20, 2), np.float32),
            "magnetic": ((3, 20, 20, 2), np.float32),
            "x": ((20,), np.float32),
            "y": ((20,), np.float32),
            "t": ((3,), np.float32),
        }
        assert (file["x"][0], file["y"][-1], file["t"][-1]) == (-0.5, 0.5, 1.0)
        assert (file["velocity"][:, -1, 1:-1, 0] == 1).all()  # the lid is at the last y and moves along x
        np.testing.assert_allclose(file["magnetic"][:, :, 0, 0], cavity.field, rtol=1e-6)
        np.testing.assert_array_equal(file["magnetic"][:], frames[..., 2:])


def test_array_has_the_published_name_and_shape(tmp_path, frames):
    path = array_path(tmp_path, 0)
    write_array(path, frames)
    assert path.name == "numpy_Bx_0.10_Re_100.npy"
    array = np.load(path)
    assert (array.shape, array.dtype) == ((3, 20, 20, 4), np.float32)
    np.testing.assert_array_equal(array, frames)


def test_published_names_have_four_and_three_characters_and_never_collide(tmp_path):
    names = [array_path(tmp_path, seed).stem for seed in range(1000)]
    assert len(set(names)) == 1000
    for name in names:
        _, _, field, _, number = name.split("_")
        assert (len(field), len(number)) == (4, 3)


def test_recorded_settings_tell_trajectories_apart(tmp_path, frames):
    write_trajectory(tmp_path / "a.h5", 4, frames, interval=0.5)
    recorded = read_config(tmp_path / "a.h5")
    assert recorded == config(4, 20, 3, 0.5)
    others = config(5, 20, 3, 0.5), config(4, 21, 3, 0.5), config(4, 20, 4, 0.5), config(4, 20, 3)
    assert len({recorded, *others}) == 5


def test_file_of_something_else_or_cut_short_has_no_settings(tmp_path, frames):
    path = tmp_path / "a.h5"
    write_trajectory(path, 4, frames)
    for content in (b"", b"CDF\x01", path.read_bytes()[:2000]):
        path.write_bytes(content)
        assert read_config(path) is None
    with h5py.File(path, "w") as file:
        file["velocity"] = frames
    assert read_config(path) is None
