"""What MATLAB, Dedalus and others write: vectors of two axes, mesh grids, labels and scales, counters and times, masks."""

import h5py
import numpy as np
import pytest

from matey.data import DataError, open_dataset
from matey.data.describing import guess_description
from tests.support.described_files import answered, flow

NUM_FRAMES, NUM_Y, NUM_X = 5, 6, 8
VALUES = np.random.default_rng(0).normal(size=(NUM_FRAMES, NUM_Y, NUM_X)).astype("f4")
T, Y, X = np.arange(NUM_FRAMES) * 0.5, np.arange(NUM_Y) * 0.25, np.arange(NUM_X) * 0.125
COORDINATES = {"spacing": {"y": "y", "x": "x"}, "time_step": "t"}
DESCRIPTION = flow(fields={"u": "u"}, boundary={"y": "wall", "x": "periodic"}, **COORDINATES)
ANSWERS = {"system": "flow", "boundary": {"y": "open", "x": "open"}}


def write(path, **arrays):
    with h5py.File(path, "w", userblock_size=512 if path.suffix == ".mat" else 0) as file:
        for name, array in ({"u": VALUES} | arrays).items():
            file[name] = array
    if path.suffix == ".mat":  # as MATLAB marks its files of version 7.3, which are HDF5 from byte 512 on
        with path.open("r+b") as file:
            file.write(b"MATLAB 7.3 MAT-file")
    return path


def opened(path, **changed):
    return open_dataset(path, DESCRIPTION | changed)


def places(data):
    return [data.coordinates(axis, [0]).values for axis in ("time", "y", "x")]


@pytest.mark.parametrize("turned", [False, True])
def test_vectors_that_matlab_writes_with_two_axes_are_coordinates(tmp_path, turned):
    vectors = {name: each[None] if turned else each[:, None] for name, each in {"t": T, "y": Y, "x": X}.items()}
    path = write(tmp_path / "run.mat", **vectors, nu=np.full((1, 1), 0.5))
    guess = guess_description(path, tmp_path).tree
    assert guess["spacing"] == {"y": "y", "x": "x"} and guess["time_step"] == "t"
    assert guess["axes"] == ["time", "y", "x"] and guess["parameters"] == {"nu": {"array": "nu"}}
    data = answered(path, **ANSWERS)
    (about,) = data.trajectories
    assert (about.spacing, about.time_step, about.parameters) == ((1, 0.25, 0.125), 0.5, {"nu": 0.5})
    for found, expected in zip(places(data), (T, Y, X), strict=True):
        np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(data.read(0, 1, 3)[:, 0, 0], VALUES[1:3])
    assert opened(tmp_path).num_trajectories == 1, "files that end in .mat are found in a folder"


@pytest.mark.parametrize(
    ("places", "words"),
    [
        (
            np.arange(NUM_X + 1) / 8,
            r"expected 8 coordinates of x, got the shape \(9,\); .* the edges .* such as x: 0.1",
        ),
        (X + 0.1 * Y[:, None], r"got the shape \(6, 8\); .* curvilinear grids are not supported"),
        (np.where(X > 0.3, np.nan, X), r"x: expected increasing coordinates, got 0.0 to nan"),
    ],
)
def test_other_coordinates_are_refused_with_what_they_may_be(tmp_path, places, words):
    with pytest.raises(DataError, match=words):
        opened(write(tmp_path / "run.h5", t=T, y=Y, x=places))


def write_dedalus(path):
    """Write tasks and scales as Dedalus does: each task has the labels of its axes, and scales of other names."""
    with h5py.File(path, "w") as file:
        names = {"x": "x_hash_4c1f", "z": "z_hash_8a02"}
        scales = {"sim_time": T, "timestep": np.full(NUM_FRAMES, 0.1), "iteration": np.arange(NUM_FRAMES) * 10}
        for name, values in (scales | {names["x"]: Y, names["z"]: X}).items():
            file[f"scales/{name}"] = values
            file[f"scales/{name}"].make_scale()
        for task, shape in {"b": VALUES.shape, "u": (NUM_FRAMES, 2, NUM_Y, NUM_X)}.items():
            file[f"tasks/{task}"] = np.broadcast_to(VALUES if task == "b" else VALUES[:, None], shape)
            dims = file[f"tasks/{task}"].dims
            for name in ("timestep", "iteration", "sim_time"):
                dims[0].attach_scale(file[f"scales/{name}"])
            for axis, label in {0: "t", -2: "x", -1: "z"}.items():
                dims[axis % len(shape)].label = label
                if label != "t":
                    dims[axis % len(shape)].attach_scale(file[f"scales/{names[label]}"])
    return [f"scales/{name}" for name in names.values()]


def test_labels_tell_the_axes_where_the_names_of_scales_do_not(tmp_path):
    along_x, along_z = write_dedalus(tmp_path / "snapshots_s1.h5")
    spacing = {"y": along_z, "x": along_x}
    guess = guess_description(tmp_path / "snapshots_s1.h5", tmp_path).tree
    assert guess["axes"] == ["time", "x", "y"], "z, the last axis of two, is our y"
    assert guess["time_step"] == "scales/sim_time" and guess["spacing"] == {"y": "TODO", "x": "TODO"}
    assert guess["fields"]["u_1"] == {"array": "tasks/u", "axes": ["time", "component", "x", "y"], "index": 1}
    data = answered(tmp_path / "snapshots_s1.h5", **ANSWERS, spacing=spacing)
    assert data.trajectories[0].time_step == 0.5 and data.trajectories[0].spacing == (1, 0.125, 0.25)
    np.testing.assert_array_equal(data.read(0, 0, 2)[:, 0, 0], VALUES[:2].transpose(0, 2, 1))


def test_truth_values_are_given_as_zeros_and_ones_and_never_predicted(tmp_path):
    mask = VALUES[0] > 0
    path = write(tmp_path / "run.h5", t=T, y=Y, x=X, solid=mask)
    data = opened(path, given={"solid": {"array": "solid", "axes": ["y", "x"]}})
    np.testing.assert_array_equal(data.read_given(0, 1, 3)[:, 0, 0], mask[None])
    write(tmp_path / "all.h5", u=VALUES > 0, t=T, y=Y, x=X)
    with pytest.raises(DataError, match="u: expected real numbers for the field 'u', got bool"):
        opened(tmp_path / "all.h5")
