"""What holds of every layout: values and coordinates at their own place, honest descriptions, words for broken files."""

import pickle
import shutil
from functools import partial

import h5py
import numpy as np
import pytest

from matey.data import DataError, open_dataset
from matey.data.miniweather import neutral_background
from matey.data.splits import Split
from matey.data.to_the_well import write_the_well as convert
from matey.data.views import JoinedTrajectories
from tests.support.layout_files import (
    NUM_FRAMES,
    NUM_X,
    NUM_Y,
    coded,
    thermals,
    write_cavity,
    write_cavity_array,
    write_compressible,
    write_incompressible,
    write_miniweather,
    write_miniweather_netcdf4,
    write_seed_groups,
    write_the_well,
)
from tests.support.small_files import write_swe

PROFILE = np.stack([np.linspace(3, 1, NUM_Y), np.linspace(300, 310, NUM_Y)])


def shallow_water(path):
    return write_seed_groups(path, "shallow_water", (NUM_FRAMES, NUM_FRAMES))


def diffusion_reaction(path):
    return write_seed_groups(path, "diffusion_reaction", (NUM_FRAMES, NUM_FRAMES))


def turbulent(path):
    return write_compressible(path, turbulent=True)


def neutral(path):
    """As the code writes it: perturbations from the neutral background, which is not in the file."""
    named = [item for item in thermals(neutral_background(NUM_Y)) if not item[0].startswith("hy_")]
    return write_miniweather(path, named)


def with_background(path):
    return write_miniweather(path, thermals(PROFILE))


def netcdf4(path):
    return write_miniweather_netcdf4(path, thermals(PROFILE))


FLOW = ("velocity_x", "velocity_y")
AIR = ("density", "potential_temperature", "velocity_x", "velocity_z")
FORMATS = {
    "shallow water": ("swe.h5", shallow_water, "shallow_water", ("water_height",)),
    "diffusion-reaction": ("dr.h5", diffusion_reaction, "diffusion_reaction", ("activator", "inhibitor")),
    "incompressible": ("ns-1.h5", write_incompressible, "incompressible", (*FLOW, "tracer")),
    "rand": ("rand.hdf5", write_compressible, "compressible_rand", (*FLOW, "density", "pressure")),
    "turb": ("turb.hdf5", turbulent, "compressible_turb", (*FLOW, "density", "pressure")),
    "thermals": ("out.nc", neutral, "colliding_thermals", AIR),
    "thermals with background": ("out.nc", with_background, "colliding_thermals", AIR),
    "thermals in netCDF-4": ("out.nc", netcdf4, "colliding_thermals", AIR),
    "cavity": ("run.h5", write_cavity, "mhd_cavity", (*FLOW, "magnetic_x", "magnetic_y")),
    "cavity array": ("numpy_Bx_0.10_Re_100.npy", write_cavity_array, "mhd_cavity", (*FLOW, "magnetic_x", "magnetic_y")),
    "the well": ("flow.hdf5", write_the_well, "test_flow", ("height", "pressure", "velocity_x", "velocity_y")),
}


ALIKE = ("diffusion-reaction", "turb", "thermals with background")  # to shallow water, rand and thermals


@pytest.fixture(params=[pytest.param(name, marks=pytest.mark.whole if name in ALIKE else ()) for name in FORMATS])
def case(request, tmp_path):
    name, write, system, fields = FORMATS[request.param]
    return write(tmp_path / name), system, fields


@pytest.fixture
def path(case):
    return case[0]


def test_every_value_lies_at_its_own_time_field_and_place(case):
    path, system, fields = case
    trajectories = open_dataset(path)
    assert (trajectories.system, trajectories.fields) == (system, fields)
    assert len(trajectories.units) == len(fields)
    last = trajectories.num_trajectories - 1
    frames = trajectories.read(last, 2, 5)
    assert frames.dtype == np.float32 and frames.flags.c_contiguous
    values = coded(4, last + 1)[last, 2:5]
    if system == "test_flow":  # its pressure is that of the first trajectory, where y = 0 on x before y
        pressure = np.broadcast_to(coded(4)[0, 2:5, 0, :1], (3, NUM_Y, NUM_X))
        values = np.stack([values[:, 0], pressure, values[:, 1], values[:, 2]], axis=1)
    np.testing.assert_allclose(frames, values[:, : len(fields), None], rtol=1e-6)


def test_a_box_of_cells_is_read_as_it_lies_in_the_whole(path):
    data = open_dataset(path)
    for z, y, x in [(0, 0, 0), (0, 3, 1)]:
        cells = slice(z, 1), slice(y, NUM_Y - 1), slice(x, x + 2)
        np.testing.assert_array_equal(data.read(0, 1, 4, cells), data.read(0, 1, 4)[:, :, *cells])


def test_the_name_of_a_folder_and_the_ending_of_a_file_do_not_matter(case, tmp_path):
    path, system, _ = case
    if path.suffix == ".npy":
        pytest.skip("an array says nothing of itself: its name must")
    assert open_dataset(path.rename(tmp_path / "renamed.h5")).system == system
    misleading = (tmp_path / "renamed.h5").rename(tmp_path / "2D_rdb_NA_NA.nc")
    assert open_dataset(str(misleading)).system == system


def test_a_set_pickles_without_open_files(path):
    trajectories = open_dataset(path)
    before = trajectories.read(0, 0, 3)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(trajectories)).read(0, 0, 3), before)


@pytest.mark.parametrize("kept", [0.9, 0.02])
def test_a_truncated_file_is_named_as_truncated_or_damaged(path, kept):
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(DataError, match=rf"{path.name}.* (cannot be|corrupt)"):
        open_dataset(path)


def test_a_file_that_goes_away_is_named_when_it_is_read(path):
    trajectories = open_dataset(path)
    shutil.rmtree(path.parent)
    with pytest.raises(DataError, match=rf"{path.name} does not exist .*moved"):
        trajectories.read(0, 0, 1)


@pytest.mark.parametrize(
    ("layout", "dataset"),
    [
        ("incompressible", "velocity"),
        ("cavity", "magnetic"),
        ("the well", "t1_fields/velocity"),
    ],
)
def test_a_missing_dataset_is_named_with_its_file(tmp_path, layout, dataset):
    name, write, *_ = FORMATS[layout]
    path = write(tmp_path / name)
    with h5py.File(path, "a") as file:
        del file[dataset]
    with pytest.raises(DataError, match=rf"{name}.*{dataset}'?: expected|{name}: expected (an array )?'{dataset}'"):
        open_dataset(path)


@pytest.mark.parametrize(
    ("layout", "dataset"),
    [("incompressible", "particles"), ("rand", "density"), ("thermals in netCDF-4", "wwnd"), ("cavity", "magnetic")],
)
def test_grid_axes_in_the_wrong_order_are_noticed(tmp_path, layout, dataset):
    name, write, *_ = FORMATS[layout]
    path = write(tmp_path / name)
    with h5py.File(path, "a") as file:
        values = file[dataset][:]
        del file[dataset]
        file[dataset] = values.swapaxes(values.shape.index(NUM_X), values.shape.index(NUM_Y))
    with pytest.raises(
        DataError, match=rf"{name}, {dataset}: expected .* got .*(write the file again|correct the axes)"
    ):
        open_dataset(path)


def test_the_array_says_by_its_name_what_it_does_not_hold(tmp_path):
    (about,) = open_dataset(write_cavity_array(tmp_path / "numpy_Bx_0.10_Re_100.npy")).trajectories
    assert about.parameters == {"Bx": 0.1, "Re_m": 100.0} and about.time_step == 0.01
    assert about.spacing == (1.0, 1 / (NUM_Y - 1), 1 / (NUM_X - 1)) and about.boundary == ("none", "wall", "wall")


def test_our_own_file_holds_grid_times_and_numbers(tmp_path):
    (about,) = open_dataset(write_cavity(tmp_path / "a.h5")).trajectories
    assert about.parameters == {"Bx": 0.25, "Re": 100.0, "Re_m": 50.0} and about.time_step == 0.5
    assert about.spacing == (1.0, 1 / 8, 1 / 4) and about.boundary == ("none", "wall", "wall")


@pytest.mark.parametrize(
    "values", [np.zeros((6, 8, 12, 3)), np.zeros((8, 12, 4)), np.zeros((0, 8, 12, 4)), np.zeros((6, 8, 12, 4), bool)]
)
def test_an_array_of_another_shape_or_type_is_refused(tmp_path, values):
    path = tmp_path / "numpy_Bx_0.10_Re_100.npy"
    np.save(path, values)
    with pytest.raises(DataError, match=r"npy: expected an array \(t, y, x, 4\) of velocity_x, .*write the file again"):
        open_dataset(path)


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


def test_half_a_background_is_refused(write):
    with pytest.raises(DataError, match=r"a\.nc, hy_theta: expected numbers of shape \(8\), axes z"):
        open_dataset(write([item for item in thermals(PROFILE) if item[0] != "hy_theta"]))


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
