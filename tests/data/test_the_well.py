"""Files in The Well's layout: read, and written from other data, in our reader and in The Well's own."""

import h5py
import numpy as np
import pytest
import yaml

from matey.data import DataError, TrajectorySet, open_dataset, to_the_well, windows
from matey.data.splits import Split
from matey.data.views import JoinedTrajectories
from tests.support.described_files import KINDS, write
from tests.support.laws import law
from tests.support.layout_files import (
    NUM_FRAMES,
    NUM_X,
    NUM_Y,
    coded,
    write_compressible,
    write_incompressible,
    write_the_well,
)


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


def converted(data, out, split=None):
    to_the_well.write_the_well(data, split or Split((0,), (), (1,)), out)
    return open_dataset(out)


def assert_same(data, well, pairs):
    """Pairs of trajectories have the same values, grids, times and parameters."""
    assert well.system == data.system and set(well.fields) == set(data.fields) and set(well.given) == set(data.given)
    order = [well.fields.index(name) for name in data.fields]
    given = [well.given.index(name) for name in data.given]
    for number, theirs in pairs:
        ours, other = data.trajectories[number], well.trajectories[theirs]
        assert (ours.grid, ours.num_frames) == (other.grid, other.num_frames)
        assert other.spacing == pytest.approx(ours.spacing, rel=1e-5)
        assert other.time_step == pytest.approx(ours.time_step, rel=1e-5)
        assert other.boundary == tuple("wall" if end == "no_flux" else end for end in ours.boundary)
        assert other.parameters == pytest.approx(ours.parameters)
        np.testing.assert_array_equal(
            well.read(theirs, 0, other.num_frames)[:, order], data.read(number, 0, ours.num_frames)
        )
        if given:
            np.testing.assert_array_equal(well.read_given(theirs, 0, 1)[:, given], data.read_given(number, 0, 1))


@law("kind", KINDS, quick=["netCDF-4", "HDF5 in groups", "NumPy"])
def test_described_files_are_converted_value_by_value(tmp_path, kind):
    data = open_dataset(write(tmp_path / "data", kind))
    well = converted(data, tmp_path / "out")
    assert [about.split for about in well.trajectories] == ["test", "train"]
    assert_same(data, well, [(0, 1), (1, 0)])


@pytest.mark.parametrize("writer", [write_compressible, write_incompressible])
def test_velocities_become_vectors_and_constant_forces_come_along(tmp_path, writer):
    data = open_dataset(writer(tmp_path / "a.h5"))
    well = converted(data, tmp_path / "out")
    assert_same(data, well, [(0, 1), (1, 0)])
    with h5py.File(tmp_path / "out" / "data" / "train" / f"{data.system}.hdf5") as file:
        vectors = ["velocity", "force"] if data.given else ["velocity"]
        assert list(file["t1_fields"].attrs["field_names"]) == vectors
        assert file["t1_fields/velocity"].shape == (1, data.trajectories[0].num_frames, NUM_X, NUM_Y, 2)


@pytest.mark.parametrize("grid", [(12,), (4, 6), (3, 4, 5)])
def test_lines_planes_and_boxes_have_vectors_and_tensors_of_their_axes(tmp_path, grid):
    axes = "xyz"[: len(grid)]
    names = ["p", *(f"u_{axis}" for axis in axes), *(f"D_{one}{other}" for one in axes for other in axes)]
    random = np.random.default_rng(0)
    data = TrajectorySet.from_arrays(
        "flow", {name: random.normal(size=(2, 3, *grid)) for name in names}, spacing=[0.5] * len(grid),
        boundary=["wall"] * len(grid),
    )  # fmt: skip
    assert_same(data, converted(data, tmp_path / "out"), [(0, 1), (1, 0)])
    with h5py.File(tmp_path / "out" / "data" / "train" / "flow.hdf5") as file:
        orders = [len(file[f"t{order}_fields"].attrs["field_names"]) for order in range(3)]
        assert orders == ([1, 1, 1] if len(grid) > 1 else [3, 0, 0])


def test_statistics_are_those_of_the_training_part_however_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(windows, "VALUES_AT_ONCE", 4 * 4 * NUM_X * NUM_Y)  # four frames
    data = open_dataset(write_compressible(tmp_path / "a.h5"))
    converted(data, tmp_path / "out")
    stats = yaml.safe_load((tmp_path / "out" / "stats.yaml").read_text())
    assert stats.keys() == {f"{kind}{of}" for kind in ("mean", "std", "rms") for of in ("", "_delta")}
    frames = data.read(0, 0, NUM_FRAMES).astype(np.float64)
    for suffix, values in (("", frames), ("_delta", np.diff(frames, axis=0))):
        over = (0, 2, 3, 4)
        density, velocity = values[:, 2], [values[:, 0], values[:, 1]]
        assert stats[f"mean{suffix}"]["density"] == pytest.approx(density.mean())
        assert stats[f"mean{suffix}"]["velocity"] == pytest.approx([v.mean() for v in velocity])
        assert stats[f"std{suffix}"]["velocity"] == pytest.approx(values.std(axis=over)[:2].tolist())
        assert stats[f"rms{suffix}"]["density"] == pytest.approx(np.sqrt((density**2).mean()))


def plane(size, num=2, **more):
    values = np.random.default_rng(size).normal(size=(num, 3, size, size))
    return TrajectorySet.from_arrays("noise", {"a": values}, spacing=(1, 1), **{"boundary": ("open", "open"), **more})


def test_each_grid_has_a_file_of_its_own(tmp_path):
    data = JoinedTrajectories([plane(4), plane(6)])
    well = converted(data, tmp_path / "out", Split((0, 1, 2), (3,), ()))
    names = [path.name for path in sorted((tmp_path / "out" / "data" / "train").iterdir())]
    assert names == ["noise_0.hdf5", "noise_1.hdf5"]
    assert_same(data, well, [(0, 0), (1, 1), (2, 2), (3, 3)])


def test_what_the_layout_cannot_say_is_a_sentence_and_leaves_nothing(tmp_path):
    with pytest.raises(DataError, match="the ends of y are 'mixed', and The Well's layout needs to know"):
        converted(plane(4, boundary=("mixed", "open")), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "out").mkdir()
    with pytest.raises(DataError, match="out exists already"):
        converted(plane(4), tmp_path / "out")
    forced = plane(4, given={"f": np.zeros((2, 3, 4, 4))}, units={"a": "m"})
    notes = to_the_well.write_the_well(forced, Split((0,), (), (1,)), tmp_path / "other")
    assert notes == [
        "No trajectory is in the parts, which are not written: valid.",
        "Left out, since the layout has no fields that are given in time: f.",
        "The layout has no place for units: a in m.",
    ]


@pytest.mark.parametrize("writer", [write_compressible, write_incompressible])
def test_the_reader_of_the_well_opens_what_was_converted(tmp_path, writer):
    well = pytest.importorskip("the_well.data", reason="needs pip install the-well")
    data = open_dataset(writer(tmp_path / "a.h5"))
    ours = converted(data, tmp_path / "out")
    for part in ("train", "test"):
        theirs = well.WellDataset(path=str(tmp_path / "out"), well_split_name=part, use_normalization=False)
        (own,) = (number for number, about in enumerate(ours.trajectories) if about.split == part)
        window = theirs[0]["input_fields"].numpy()  # (t, x, y, f)
        np.testing.assert_array_equal(window.transpose(0, 3, 2, 1), ours.read(own, 0, 1)[:, :, 0])
        normalised = well.WellDataset(path=str(tmp_path / "out"), well_split_name=part, use_normalization=True)
        assert np.isfinite(normalised[0]["output_fields"].numpy()).all()
