"""miniWeather's files: full fields from perturbations, the vertical on our y axis, and the words for broken ones."""

import h5py
import numpy as np
import pytest

from matey.data import DataError, open_dataset
from matey.data.miniweather import neutral_background
from tests.support.layout_files import NUM_X, NUM_Y, thermals, write_miniweather, write_miniweather_netcdf4

PROFILE = np.stack([np.linspace(3, 1, NUM_Y), np.linspace(300, 310, NUM_Y)])
WRITERS = {"classic": write_miniweather, "netCDF-4": write_miniweather_netcdf4}


@pytest.fixture(params=list(WRITERS))
def write(request, tmp_path):
    return lambda variables: WRITERS[request.param](tmp_path / "a.nc", variables)


def test_description_holds_domain_mean_interval_and_boundaries(write):
    trajectories = open_dataset(write(thermals()))
    (about,) = trajectories.trajectories
    assert (about.name, about.grid) == ("a", (1, NUM_Y, NUM_X))
    assert about.spacing == pytest.approx((1.0, 1e4 / NUM_Y, 2e4 / NUM_X)) and about.time_step == pytest.approx(20)
    assert about.boundary == ("none", "wall", "periodic") and about.periodic == (False, False, True)
    assert trajectories.units == ("kg/m^3", "K", "m/s", "m/s")


def without(variables, name):
    return [item for item in variables if item[0] != name]


def test_half_a_background_is_refused(write):
    with pytest.raises(DataError, match=r"a\.nc, hy_theta: expected numbers of shape \(8\), axes z"):
        open_dataset(write(without(thermals(PROFILE), "hy_theta")))


def test_axes_in_another_order_are_refused(write):
    variables = [(n, ("t", "x", "z") if n == "wwnd" else a, v.mT if n == "wwnd" else v) for n, a, v in thermals()]
    with pytest.raises(DataError, match=r"a\.nc, wwnd: expected .*, axes t z x, .* on \('t', 'x', 'z'\)"):
        open_dataset(write(variables))


def test_the_64_bit_format_of_some_parallel_runs_says_how_to_convert_it(tmp_path):
    write_miniweather(tmp_path / "a.nc", thermals(PROFILE))
    (tmp_path / "b.nc").write_bytes(b"CDF\x05" + (tmp_path / "a.nc").read_bytes()[4:])
    with pytest.raises(DataError, match=r"b\.nc cannot be read as classic netCDF .* CDF-5: nccopy -k netCDF-4"):
        open_dataset(tmp_path / "b.nc")


def test_the_background_is_hydrostatic_at_300_kelvin():
    density, theta = neutral_background(1000)
    assert (theta == 300).all()
    pressure = 27.5629410929725921310572974482 * (density * theta) ** 1.40027894002789400278940027894
    np.testing.assert_allclose(np.diff(pressure) / 10, -9.8 * (density[1:] + density[:-1]) / 2, rtol=1e-4)


def test_the_real_file_with_a_background_has_ours(real_file):
    with h5py.File(real_file("miniweather/with_background") / "collision_256x256.nc") as file:
        np.testing.assert_allclose(neutral_background(256), [file["hy_dens"], file["hy_theta"]], rtol=1e-12)


@pytest.mark.parametrize(
    ("name", "num_frames", "grid", "time_step"),
    [
        ("miniweather/collision_100x50.nc", 21, (1, 50, 100), 20.0333333),
        ("miniweather/with_background", 4, (1, 256, 256), 50.0),
    ],
)
def test_real_thermals_keep_their_mass_and_the_warm_one_rises_from_below(real_file, name, num_frames, grid, time_step):
    trajectories = open_dataset(real_file(name))
    (about,) = trajectories.trajectories
    assert (trajectories.system, about.num_frames, about.grid) == ("colliding_thermals", num_frames, grid)
    assert about.time_step == pytest.approx(time_step)
    density, theta, _, wind = trajectories.read(0, 0, num_frames).astype(np.float64)[:, :, 0].swapaxes(0, 1)
    mass = density.sum((1, 2))
    np.testing.assert_allclose(mass, mass[0], rtol=1e-8)
    assert density[0, 0].mean() > 1.1 > 0.5 > density[0, -1].mean()
    for extreme, height, sign in ((theta[0].argmax(), 2000, 1), (theta[0].argmin(), 8000, -1)):
        y, x = np.unravel_index(extreme, grid[1:])
        assert (y + 0.5) * about.spacing[1] == pytest.approx(height, abs=about.spacing[1])
        assert (x + 0.5) * about.spacing[2] == pytest.approx(1e4, abs=about.spacing[2])
        assert abs(theta[0, y, x] - 300) == pytest.approx(20, rel=0.02) and sign * wind[1, y, x] > 5
