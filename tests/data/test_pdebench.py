"""PDEBench readers: orientation, descriptions, and what is said about files that are not as they should be."""

import h5py
import numpy as np
import pytest

from matey.data import DataError, open_dataset
from tests.support.layout_files import (
    NUM_FRAMES,
    NUM_X,
    NUM_Y,
    coded_groups,
    write_compressible,
    write_incompressible,
    write_seed_groups,
)

SYSTEMS = ["shallow_water", "diffusion_reaction"]


@pytest.fixture(params=SYSTEMS)
def system(request):
    return request.param


@pytest.fixture
def path(tmp_path, system):
    return write_seed_groups(tmp_path / "a.h5", system)


def test_description_holds_grid_spacing_time_step_and_parameters(path, system):
    trajectories = open_dataset(path)
    assert trajectories.system == system
    assert trajectories.fields == {"shallow_water": ("water_height",)}.get(system, ("activator", "inhibitor"))
    assert len(trajectories.units) == len(trajectories.fields)
    assert (trajectories.num_trajectories, trajectories.sources) == (3, (path,))
    about = trajectories.trajectories[1]
    assert (about.name, about.num_frames, about.grid) == ("0001", 11, (1, NUM_Y, NUM_X))
    assert about.spacing == pytest.approx((1.0, 0.25, 0.5)) and about.time_step == pytest.approx(1 / 64)
    assert about.periodic == (False, False, False) and about.boundary[0] == "none"
    expected = {"shallow_water": {"dam_radius": 0.5, "gravity": 1.0}}.get(
        system, {"Du": 0.001, "Dv": 0.005, "k": 0.005}
    )
    assert about.parameters == {"seed": 1.0, **expected}


def test_a_file_without_yaml_is_told_by_its_number_of_channels(tmp_path, system):
    trajectories = open_dataset(write_seed_groups(tmp_path / "a.h5", system, config=False))
    assert trajectories.system == system and trajectories.trajectories[0].parameters == {}


@pytest.mark.parametrize("shape", [(11, NUM_X, 1), (11, NUM_X, NUM_Y, 3)])
def test_data_of_wrong_rank_channels_or_length_is_named(tmp_path, shape):
    first, _, last = coded_groups("shallow_water")
    path = write_seed_groups(tmp_path / "a.h5", "shallow_water", data=[first, np.zeros(shape, np.float32), last])
    with pytest.raises(DataError) as error:
        open_dataset(path)
    for part in ("a.h5, 0001/data", "expected shape (t, x, y, 1)", f"got {shape}", "write the file again"):
        assert part in str(error.value)


def test_grid_axes_in_the_wrong_order_are_noticed(tmp_path, system):
    data = [frames.swapaxes(1, 2) for frames in coded_groups(system)]
    path = write_seed_groups(tmp_path / "a.h5", system, data=data)
    with pytest.raises(DataError, match="0000/grid/[xy]: expected .* coordinates .* check the order of the grid axes"):
        open_dataset(path)


def test_a_value_that_is_not_finite_is_located_when_it_is_read(path):
    with h5py.File(path, "a") as file:
        shape = file["0001/data"].shape
        file["0001/data"][6, 2, 5, shape[-1] - 1] = np.nan
    trajectories = open_dataset(path)
    y, x = (5, 2) if shape[-1] == 1 else (2, 5)
    trajectories.read(1, 0, 6)
    trajectories.read(0, 0, 11)
    with pytest.raises(DataError) as error:
        trajectories.read(1, 4, 8)
    for part in ("a.h5, trajectory 0001", trajectories.fields[-1], "nan", "frame 6", f"(0, {y}, {x})", "remove"):
        assert part in str(error.value)


def test_real_dam_break_keeps_its_mass(real_file):
    trajectories = open_dataset(real_file("pdebench/swe/2D_rdb_NA_NA.h5"))
    assert (trajectories.system, trajectories.num_trajectories) == ("shallow_water", 3)
    for index, about in enumerate(trajectories.trajectories):
        assert (about.num_frames, about.grid) == (101, (1, 64, 64)) and about.time_step == pytest.approx(0.01)
        assert about.spacing == (1.0, 5 / 64, 5 / 64) and 0.3 <= about.parameters["dam_radius"] <= 0.7
        mass = trajectories.read(index, 0, 101).astype(np.float64).sum((1, 2, 3, 4)) * (5 / 64) ** 2
        np.testing.assert_allclose(mass, mass[0], rtol=1e-6)
    assert trajectories.trajectories[2].parameters["dam_radius"] == pytest.approx(0.577573, abs=1e-6)
    assert mass[0] == pytest.approx(26.04980469, rel=1e-7)


def test_real_diffusion_reaction_obeys_the_mean_of_its_second_equation(real_file):
    """d<v>/dt = <u> - <v> tells the two channels apart, and the time step."""
    trajectories = open_dataset(real_file("pdebench/diffusion_reaction/2D_diff-react_NA_NA.h5"))
    assert (trajectories.system, trajectories.num_trajectories) == ("diffusion_reaction", 2)
    for index, about in enumerate(trajectories.trajectories):
        u, v = trajectories.read(index, 0, about.num_frames).astype(np.float64).mean((2, 3, 4)).T
        rate = (u - v)[1:] + (u - v)[:-1]
        np.testing.assert_allclose(np.diff(v), rate / 2 * about.time_step, atol=5e-5 * about.time_step)


@pytest.mark.parametrize("last", [np.nan, -1.0])
def test_coordinates_that_do_not_increase_are_named(path, last):
    with h5py.File(path, "a") as file:
        file["0001/grid/x"][-1] = last
    with pytest.raises(DataError, match="0001/grid/x: expected increasing coordinates, got 0.25 to"):
        open_dataset(path)


def test_yaml_entries_that_are_no_numbers_are_left_out(tmp_path):
    path = write_seed_groups(tmp_path / "a.h5", "shallow_water", num_frames=(3,))
    with h5py.File(path, "a") as file:
        file["0000"].attrs["config"] = "sim:\n  dam_radius: 5e-1\n  seed: null\n  gravity: ???\n"
    assert open_dataset(path).trajectories[0].parameters == {"dam_radius": 0.5}


def test_description_holds_domain_interval_and_parameters(tmp_path):
    about = open_dataset(write_incompressible(tmp_path / "a.h5")).trajectories[1]
    assert about.spacing == pytest.approx((1.0, 1 / 8, 1 / 12)) and about.time_step == pytest.approx(1 / 64)
    assert about.boundary == ("none", "wall", "wall")
    assert about.parameters == {"seed": 7.0, "NU": 0.01, "force_scale": 0.15}


def test_frames_after_the_latest_one_written_are_not_part_of_the_trajectory(tmp_path):
    trajectories = open_dataset(write_incompressible(tmp_path / "a.h5", num_written=3))
    assert [about.num_frames for about in trajectories.trajectories] == [3, 3]
    trajectories.read(1, 0, 3)


def test_real_flow_is_divergence_free_where_x_and_y_are_what_they_say(real_file):
    """Frame 0 is not yet projected, as the README of the real files says; with x and y swapped it is 190 times larger."""
    trajectories = open_dataset(real_file("pdebench/incompressible"))
    assert (trajectories.system, trajectories.num_trajectories) == ("incompressible", 2)
    about = trajectories.trajectories[0]
    assert (about.num_frames, about.grid, about.spacing) == (41, (1, 64, 64), (1.0, 1 / 64, 1 / 64))
    assert about.time_step == pytest.approx(0.005) and about.parameters["NU"] == 0.01
    for index in range(2):
        u, v, _ = trajectories.read(index, 0, 41).astype(np.float64)[[0, 40], :, 0].swapaxes(0, 1)
        divergence = (np.gradient(u, 1 / 64, axis=2) + np.gradient(v, 1 / 64, axis=1))[:, 2:-2, 2:-2]
        first, last = np.sqrt((divergence**2).mean((1, 2)))
        assert first > 5 and last < 0.1


def continuity(frames, spacing, time_step):
    """How well d rho / dt goes with -div(rho v) on a periodic grid: 1 where it is the same to second order."""
    u, v, density = frames[:, :3, 0].astype(np.float64).swapaxes(0, 1)
    along_x = (np.roll(density * u, -1, 2) - np.roll(density * u, 1, 2)) / (2 * spacing[2])
    along_y = (np.roll(density * v, -1, 1) - np.roll(density * v, 1, 1)) / (2 * spacing[1])
    rate = (density[2:] - density[:-2]) / (2 * time_step)
    return float(np.corrcoef(rate.ravel(), -(along_x + along_y)[1:-1].ravel())[0, 1])


@pytest.mark.parametrize("turbulent", [False, True])
def test_description_of_a_gas_holds_domain_interval_and_parameters(tmp_path, turbulent):
    trajectories = open_dataset(write_compressible(tmp_path / "a.hdf5", turbulent))
    assert trajectories.num_trajectories == 2
    about = trajectories.trajectories[1]
    assert about.num_frames == NUM_FRAMES  # the file has one more time
    assert about.spacing == pytest.approx((1.0, 1 / 16, 1 / 4)) and about.time_step == pytest.approx(1 / 32)
    assert about.boundary == ("none", "periodic", "periodic") and about.periodic == (False, True, True)
    assert about.parameters == {"M": 0.1, "eta": 0.01, "zeta": 0.02}


def test_rand_and_turb_are_told_apart_by_their_first_density_not_by_their_name(tmp_path):
    assert open_dataset(write_compressible(tmp_path / "2D_CFD_Turb_M1.0.hdf5")).system == "compressible_rand"
    assert open_dataset(write_compressible(tmp_path / "2D_CFD_Rand_M1.0.hdf5", True)).system == "compressible_turb"


def test_real_random_flow_keeps_its_mass_and_obeys_continuity(real_file):
    trajectories = open_dataset(real_file("pdebench/cfd_rand"))
    assert (trajectories.system, trajectories.num_trajectories) == ("compressible_rand", 3)
    about = trajectories.trajectories[0]
    assert (about.num_frames, about.grid, about.spacing) == (21, (1, 64, 64), (1.0, 1 / 64, 1 / 64))
    assert about.time_step == pytest.approx(0.05) and about.parameters == {"M": 0.1, "eta": 0.01, "zeta": 0.01}
    for index in range(3):
        frames = trajectories.read(index, 0, 21).astype(np.float64)
        mass, momentum = frames[:, 2].sum((1, 2, 3)), (frames[:, :2] * frames[:, 2:3]).sum((2, 3, 4))
        np.testing.assert_allclose(mass, mass[0], rtol=1e-5)
        np.testing.assert_allclose(momentum, momentum[:1].repeat(21, 0), atol=1e-4 * mass[0])
        # Sound crosses several cells between frames; friction leaves waves long and slow enough from frame 10 on.
        late = frames[10:]
        assert continuity(late, about.spacing, about.time_step) > 0.7
        assert abs(continuity(late.swapaxes(-1, -2), about.spacing, about.time_step)) < 0.2


def test_real_turbulence_starts_as_the_paper_says(real_file):
    trajectories = open_dataset(real_file("pdebench/cfd_turb"))
    assert (trajectories.system, trajectories.num_trajectories) == ("compressible_turb", 2)
    assert trajectories.trajectories[0].parameters == {"M": 1.0, "eta": 1e-8, "zeta": 1e-8}
    for index in range(2):
        frames = trajectories.read(index, 0, 1)
        assert np.ptp(frames[0, 2]) == 0 and frames[0, 3].mean() == pytest.approx(0.6)
        assert np.hypot(frames[0, 0], frames[0, 1]).mean() == pytest.approx(1, abs=1e-3)
