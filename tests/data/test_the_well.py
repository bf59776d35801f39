"""Files in The Well's layout: flattening, its axes, boundaries and splits."""

import h5py
import numpy as np
import pytest

from matey.data import DataError, open_dataset
from tests.support.layout_files import NUM_FRAMES, coded, write_the_well


@pytest.fixture
def path(tmp_path):
    return write_the_well(tmp_path / "test_flow" / "data" / "train" / "a.hdf5")


def test_description_holds_grid_times_and_scalars_of_each_trajectory(path):
    trajectories = open_dataset(path)
    assert trajectories.system == "test_flow" and set(trajectories.units) == {"?"}
    first, second = trajectories.trajectories
    assert first.spacing == (1.0, 0.25, 0.5)
    assert (first.time_step, second.time_step) == (1 / 8, 1 / 4)
    assert (first.parameters, second.parameters) == ({"viscosity": 0.5}, {"viscosity": 0.25})


def test_ends_of_different_kind_are_mixed_and_those_alike_are_one(path):
    about = open_dataset(path).trajectories[0]
    assert about.boundary == ("none", "mixed", "periodic") and about.periodic == (False, False, True)
    with h5py.File(path, "a") as file:
        file["boundary_conditions/above"].attrs["bc_type"] = "WALL"
        del file["boundary_conditions/around"]
    assert open_dataset(path).trajectories[0].boundary == ("none", "wall", "open")


def test_axes_are_taken_by_their_name(tmp_path):
    """Components are flattened in the order of the file, so the fields trade places and the values follow."""
    trajectories = open_dataset(write_the_well(tmp_path / "a.hdf5", dims=("y", "x")))
    assert trajectories.fields == ("height", "pressure", "velocity_y", "velocity_x")
    frames = trajectories.read(1, 0, NUM_FRAMES)
    np.testing.assert_array_equal(frames[:, [0, 3, 2], 0], coded(3)[1])
    assert trajectories.trajectories[0].spacing == (1.0, 0.25, 0.5)


@pytest.mark.parametrize("axis", ["x", "y"])
def test_grids_that_are_uneven_or_not_cartesian_are_refused(path, axis):
    with h5py.File(path, "a") as file:
        file.attrs["grid_type"] = "spherical"
    with pytest.raises(DataError, match="a.hdf5: expected a cartesian grid, got the grid_type 'spherical'; other"):
        open_dataset(path)
    with h5py.File(path, "a") as file:
        file.attrs["grid_type"] = "Cartesian"
        file[f"dimensions/{axis}"][-1] *= 1.01
    with pytest.raises(
        DataError, match=f"dimensions/{axis}: expected evenly spaced coordinates, .*: resample the data"
    ):
        open_dataset(path)


def test_tensors_are_flattened_row_by_row(path):
    with h5py.File(path, "a") as file:
        values = np.arange(2 * NUM_FRAMES * 12 * 8 * 4, dtype=np.float32).reshape(2, NUM_FRAMES, 12, 8, 2, 2)
        file["t2_fields"].attrs["field_names"] = ["D"]
        file["t2_fields/D"] = values
        file["t2_fields/D"].attrs.update(sample_varying=True, time_varying=True, dim_varying=[True, True])
    trajectories = open_dataset(path)
    assert trajectories.fields[-4:] == ("D_xx", "D_xy", "D_yx", "D_yy")
    np.testing.assert_array_equal(trajectories.read(1, 2, 3)[0, -4:, 0, 5, 7], values[1, 2, 7, 5].ravel())


@pytest.mark.parametrize("num_dims", [1, 3])
def test_one_and_three_dimensions_are_read(path, num_dims):
    shape = (12, 8, 4)[:num_dims]
    values = np.random.default_rng(0).random((2, NUM_FRAMES, *shape), np.float32)
    with h5py.File(path, "a") as file:
        for name in ("t0_fields", "t1_fields", "boundary_conditions"):
            del file[name]
        file["t0_fields/heat"] = values
        file["t0_fields"].attrs["field_names"] = ["heat"]
        file["t0_fields/heat"].attrs.update(sample_varying=True, time_varying=True, dim_varying=[True] * num_dims)
        file["dimensions/z"] = np.arange(4.0)
        file["dimensions/z"].attrs.update(sample_varying=False, time_varying=False)
        file["dimensions"].attrs["spatial_dims"] = list("xyz"[:num_dims])
    trajectories = open_dataset(path)
    assert trajectories.trajectories[0].grid == ((4, 8, 12) if num_dims == 3 else (1, 1, 12))
    np.testing.assert_array_equal(
        trajectories.read(1, 1, 3)[:, 0].squeeze(), values[1, 1:3].transpose(0, *range(num_dims, 0, -1))
    )


@pytest.mark.parametrize("part", ["train", "valid", "test"])
def test_the_folder_of_a_file_is_its_split(tmp_path, part):
    path = write_the_well(tmp_path / "test_flow" / "data" / part / "a.hdf5")
    assert {about.split for about in open_dataset(path).trajectories} == {part}
    path = write_the_well(tmp_path / "elsewhere" / part / "a.hdf5")
    assert {about.split for about in open_dataset(path).trajectories} == {None}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda file: file.attrs.pop("dataset_name"), "expected the attribute 'dataset_name'"),
        (lambda file: file["t0_fields/height"].attrs.pop("time_varying"), "t0_fields/height: .* 'time_varying'"),
        (
            lambda file: file.attrs.update(n_trajectories=3),
            r"height: expected real numbers of shape \(3, 6, 12, 8\) .*got \(2, 6",
        ),
        (lambda file: file["dimensions"].attrs.update(spatial_dims=["x", "x"]), "expected x, x and y, .*got"),
        (
            lambda file: file["boundary_conditions/below"].attrs.update(bc_type="SLIP"),
            "expected bc_type WALL, .*'SLIP'",
        ),
        (lambda file: file["t0_fields"].attrs.update(field_names=["height", "heat"]), "expected 't0_fields/heat'"),
    ],
)
def test_what_does_not_keep_to_the_layout_is_named(path, change, words):
    with h5py.File(path, "a") as file:
        change(file)
    with pytest.raises(DataError, match=rf"a\.hdf5.*{words}.*write"):
        open_dataset(path)


@pytest.mark.parametrize("place", ["scalars/viscosity", "boundary_conditions/below"])
def test_a_broken_link_in_the_place_of_what_is_read_is_a_sentence(path, place):
    with h5py.File(path, "a") as file:
        del file[place]
        file[place] = h5py.SoftLink("/nowhere")
    with pytest.raises(DataError, match=r"a\.hdf5.*(corrupt|write it again)"):
        open_dataset(path)


def test_the_real_dam_break_has_the_heights_of_pdebench(real_file):
    trajectories = open_dataset(real_file("the_well/pdebench_radial_dam_break"))
    assert (trajectories.system, trajectories.fields) == ("pdebench_radial_dam_break", ("height",))
    assert [about.split for about in trajectories.trajectories] == ["test"] * 2 + ["train"] * 8 + ["valid"] * 2
    about = trajectories.trajectories[2]
    assert (about.num_frames, about.grid, about.boundary) == (21, (1, 64, 64), ("none", "open", "open"))
    assert about.spacing == pytest.approx((1, 5 / 64, 5 / 64)) and about.time_step == pytest.approx(0.05)
    heights = np.concatenate([trajectories.read(index, 0, 21) for index in range(2, 10)]).astype(np.float64)
    assert heights.mean() == pytest.approx(1.0355, abs=1e-4)  # stats.yaml, of the training part
    assert heights.std() == pytest.approx(0.11732, abs=1e-5)
