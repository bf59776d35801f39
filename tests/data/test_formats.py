"""What holds of every layout: values at their own place, honest descriptions, and words for files that are broken."""

import pickle
import shutil

import h5py
import numpy as np
import pytest

from matey.data import DataError, open_dataset
from matey.data.miniweather import neutral_background
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
    return write_miniweather(path, thermals(np.stack([np.linspace(3, 1, NUM_Y), np.linspace(300, 310, NUM_Y)])))


def netcdf4(path):
    return write_miniweather_netcdf4(path, thermals(np.stack([np.linspace(3, 1, NUM_Y), np.linspace(300, 310, NUM_Y)])))


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
        ("rand", "x-coordinate"),
        ("thermals in netCDF-4", "uwnd"),
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
