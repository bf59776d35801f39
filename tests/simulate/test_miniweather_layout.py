"""Written files against the file of miniWeather itself."""

import numpy as np
import pytest
from scipy.io import netcdf_file

from matey.simulate.miniweather_layout import config, read_config, trajectory_path, write_trajectory
from matey.simulate.stratified_flow import Slice, background_density
from matey.simulate.thermals import solve
from tests.support.paths import SHARED


def structure(file):
    """Return what a reader can rely on: order and lengths of the dimensions, and axes and types of the variables."""
    variables = {name: (item.dimensions, item.data.dtype.str) for name, item in file.variables.items()}
    return list(file.dimensions.items()), variables


def test_file_is_laid_out_as_miniweathers_with_the_background_added(tmp_path):
    published = SHARED / "miniweather" / "collision_100x50.nc"
    if not published.exists():
        pytest.skip("no collision_100x50.nc of the published generator beside the repository")
    ours = tmp_path / "a.nc"
    write_trajectory(ours, 7, np.zeros((3, 4, 50, 100)))
    assert ours.read_bytes()[:4] == published.read_bytes()[:4] == b"CDF\x01"
    with netcdf_file(ours, mmap=False) as our_file, netcdf_file(published, mmap=False) as their_file:
        our_dimensions, our_variables = structure(our_file)
        their_dimensions, their_variables = structure(their_file)
    assert our_dimensions == their_dimensions
    background = {name: (("z",), ">f8") for name in ("hy_dens", "hy_theta")}
    assert our_variables == their_variables | background


def test_solved_fields_come_back_under_their_names(tmp_path):
    frames = solve([3], resolution=24, num_frames=4)[0]
    write_trajectory(tmp_path / "a.nc", 3, frames.numpy())
    with netcdf_file(tmp_path / "a.nc", mmap=False) as file:
        for index, name in enumerate(("dens", "uwnd", "wwnd", "theta")):
            np.testing.assert_array_equal(file.variables[name][:], frames[:, index])
        np.testing.assert_array_equal(file.variables["t"][:], [0, 20, 40, 60])
        np.testing.assert_array_equal(file.variables["hy_dens"][:], background_density(Slice(12, 24).z_centres()))
        np.testing.assert_array_equal(file.variables["hy_theta"][:], np.full(12, 300))


def test_recorded_settings_tell_trajectories_apart(tmp_path):
    write_trajectory(tmp_path / "a.nc", 5, np.zeros((3, 4, 8, 16)))
    recorded = read_config(tmp_path / "a.nc")
    assert recorded == config(5, 16, 3)
    assert len({recorded, config(6, 16, 3), config(5, 18, 3), config(5, 16, 4), config(5, 16, 3, interval=10.0)}) == 5


@pytest.mark.parametrize("content", [b"", b"CDF\x01\x00", b"\x89HDF\r\n\x1a\n" + bytes(600)])
def test_file_of_something_else_has_no_settings(tmp_path, content):
    path = trajectory_path(tmp_path, 0)
    path.write_bytes(content)
    assert read_config(path) is None


def test_file_cut_short_has_no_settings(tmp_path):
    path = tmp_path / "a.nc"
    write_trajectory(path, 0, np.zeros((3, 4, 8, 16)))
    whole = path.read_bytes()
    for length in (20, 200, 700, len(whole) - 1):
        path.write_bytes(whole[:length])
        assert read_config(path) is None
