"""What can be guessed of a file's description, and that the rest is asked for: names, layouts and files of other programs."""

import sys

import h5py
import numpy as np
import pytest
import xarray

from matey.data import DataError, open_dataset
from tests.support.described_files import KINDS, answered, flow, guessed, write
from tests.support.laws import law
from tests.support.layout_files import NUM_X, NUM_Y, coded
from tests.support.programs import start
from tests.support.snapshot_files import LAYOUTS, NUM_SNAPSHOTS, VALUES, write_hdf5

ANSWERS = {"system": "advection", "boundary": {"y": "wall", "x": "periodic"}}


@law("kind", [kind for kind in KINDS if kind not in ("NumPy", "HDF5 in groups")], quick=["netCDF-4", "Zarr 3"])
def test_a_guess_with_its_questions_answered_reads_the_file(tmp_path, kind):
    expected = open_dataset(write(tmp_path, kind))
    path = tmp_path / KINDS[kind][0]
    assert guessed(path).questions == ["system", "boundary.y", "boundary.x"]
    data = answered(path, **ANSWERS)
    for index, about in enumerate(data.trajectories):
        np.testing.assert_array_equal(data.read(index, 1, 4), expected.read(index, 1, 4))
        assert (about.spacing, about.time_step) == (expected.trajectories[index].spacing, 0.5)
        assert about.parameters["Re"] == 100


def test_the_reader_refuses_a_guess_until_all_is_answered(tmp_path):
    write(tmp_path)
    (tmp_path / "matey.yaml").write_text(guessed(tmp_path / "a.nc").text)
    with pytest.raises(DataError, match="matey.yaml: system, boundary.y, boundary.x still say TODO"):
        open_dataset(tmp_path)


def test_axes_without_names_are_asked_for_with_a_suggestion(tmp_path):
    write(tmp_path, "NumPy")
    guess = guessed(tmp_path / "a.npy")
    assert guess.questions == ["system", "axes", "spacing", "time_step", "boundary"]
    assert "axes: TODO  # the arrays are (2, 2, 6, 8, 12): in the order of the file" in guess.text


def test_arrays_of_other_shapes_are_left_out_and_named(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["u"], file["bottom"] = coded(1, 1, 30)[0, :, 0], np.zeros((NUM_Y, NUM_X), "f4")
    text = guessed(tmp_path / "a.h5").text
    assert "# Left out, of other shapes than the fields: bottom (8, 12)." in text


def test_a_file_without_fields_is_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros(5))
    with pytest.raises(
        DataError, match=r"a.npy: expected an array of two axes or more, .* found array \(5,\) of float64"
    ):
        guessed(tmp_path / "a.npy")


def test_the_tool_writes_a_guess_draws_it_and_writes_over_nothing(tmp_path):
    write(tmp_path).unlink()
    out, sheet = tmp_path / "matey.yaml", tmp_path / "sheet.png"
    command = [sys.executable, "tools/inspect_data.py", tmp_path / "a.nc", "--describe", out, "--plot", "--out", sheet]
    result = start(command)
    assert result.returncode == 0, result.stderr
    assert out.read_text() in result.stdout and "to answer in it: system, boundary.y, boundary.x" in result.stdout
    assert sheet.read_bytes().startswith(b"\x89PNG")
    again = start(command)
    assert again.returncode == 2 and "matey.yaml exists already" in again.stderr


MODELS = {
    "ERA5": "valid_time pressure_level latitude longitude",
    "MOM6": "time z_l yh xh",
    "NEMO": "time_counter deptht y x",
    "Oceananigans": "time z_aac y_aca x_caa",
    "BOUT++": "t x y z",
}


@pytest.mark.parametrize("model", MODELS)
def test_few_levels_of_a_known_name_are_no_components(tmp_path, model):
    names = MODELS[model].split()
    places = {name: np.arange(size) + 0.5 for name, size in zip(names, (7, 5, 8, 12), strict=True)}
    xarray.Dataset({"q": (names, np.ones((7, 5, 8, 12), "f4"))}, places).to_netcdf(tmp_path / "run.nc")
    tree = guessed(tmp_path / "run.nc").tree
    assert sorted(tree["axes"]) == ["time", "x", "y", "z"] and tree["fields"] == {"q": "q"}
    assert {*tree["spacing"].values(), tree["time_step"]} == {*names}


def test_uneven_levels_are_a_question(tmp_path):
    places = {"level": [300.0, 500, 850], "lat": np.linspace(80, -80, 9), "lon": np.arange(0, 360, 30.0)}
    data = xarray.Dataset({"t": (("time", *places), np.ones((4, 3, 9, 12), "f4"))}, {"time": np.arange(4.0), **places})
    data["lon"].attrs["units"] = "degrees_east"
    data.to_netcdf(tmp_path / "era.nc")
    guess = guessed(tmp_path / "era.nc")
    assert guess.tree["boundary"] == {"z": "TODO", "y": "TODO", "x": "TODO"}
    assert guess.tree["spacing"] == {"z": "TODO", "y": "lat", "x": "lon"}
    assert guess.questions == ["system", "spacing.z", "boundary.z", "boundary.y", "boundary.x"]
    assert "level is uneven, which is not supported" in guess.text


FIRST = {
    "HDF5": "run_0/plt_0.h5",
    "NumPy": "sim0_u_0000.npy",
    "netCDF": "run_0/out0.nc",
    "Zarr": "run_0/0.zarr",
}
BY_HAND = {
    "HDF5": {"axes": ["y", "x"]},
    "NumPy": {
        "axes": ["component", "y", "x"],
        "files": "sim*_u_*.npy",
        "fields": {name: {"index": number} for number, name in enumerate("hq")},
        "time_step": 0.25,
    },
}


@law("layout", FIRST, quick=["NumPy", "netCDF"])
def test_a_guess_from_one_snapshot_with_its_questions_answered_reads_all(tmp_path, layout):
    LAYOUTS[layout](tmp_path)
    by_hand = {"spacing": {"y": 0.25, "x": 0.125}} | BY_HAND.get(layout, {})
    data = answered(tmp_path / FIRST[layout], tmp_path, **ANSWERS, **by_hand)
    assert data.num_trajectories == 2
    for number in range(2):
        np.testing.assert_array_equal(data.read(number, 0, NUM_SNAPSHOTS)[:, :, 0], VALUES[number])


def test_files_that_a_number_tells_apart_are_said_to_be_snapshots(tmp_path):
    write_hdf5(tmp_path)
    guess = guessed(tmp_path / "run_0" / "plt_0.h5", tmp_path)
    assert (
        "# Files run_*/plt_*.h5 differ in a number: where each is one snapshot, leave time out of axes." in guess.text
    )
    assert guess.tree["time_step"] == {"attribute": "time"} and list(guess.tree["parameters"]) == ["nu"]
    alone = guessed(tmp_path / "run_0" / "plt_0.h5")
    assert alone.tree["files"] == "plt_*.h5"


def test_a_description_of_fields_and_what_lies_between_them_is_refused(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["p"], file["u"] = np.zeros((5, 8, 12), "f4"), np.zeros((5, 8, 13), "f4")
    for fields in ({"p": "p", "u": "u"}, {"u": "u", "p": "p"}):
        with pytest.raises(
            DataError, match=r"average a field of a staggered grid to the cells first \(docs/own_data.md\)"
        ):
            open_dataset(tmp_path / "a.h5", flow(fields=fields))


def test_without_names_of_axes_a_staggered_grid_is_known_by_its_sizes(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["p"], file["u"], file["v"] = (np.zeros((5, 8 + y, 12 + x), "f4") for y, x in ((0, 0), (0, 1), (1, 0)))
        file["t"], file["y"], file["x"] = np.arange(5.0), np.arange(8.0), np.arange(12.0)
    guess = guessed(tmp_path / "a.h5")
    assert guess.tree["fields"] == {"pressure": "p"} and guess.tree["axes"] == ["time", "y", "x"]
    assert "Left out, of other shapes than the fields: u (5, 8, 13)" in guess.text


def test_components_one_more_than_others_are_no_staggered_grid(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["velocity"], file["b"] = np.zeros((5, 8, 12, 3), "f4"), np.zeros((5, 8, 12, 2), "f4")
        file["t"], file["y"], file["x"] = np.arange(5.0), np.arange(8.0), np.arange(12.0)
    vectors = {"velocity_x", "velocity_y", "velocity_z", "magnetic_x", "magnetic_y"}
    assert guessed(tmp_path / "a.h5").tree["fields"].keys() == vectors


U = coded(1, 1, 5)[0, :, 0]  # (t, y, x)
T, Y, X = (np.arange(size) * step for size, step in zip(U.shape, (0.5, 0.25, 0.125), strict=True))
COORDINATES = {"spacing": {"y": "y", "x": "x"}, "time_step": "t"}
DESCRIPTION = flow(fields={"u": "u"}, boundary={"y": "wall", "x": "periodic"}, **COORDINATES)


def hdf5_of(path, **arrays):
    with h5py.File(path, "w", userblock_size=512 if path.suffix == ".mat" else 0) as file:
        for name, array in ({"u": U} | arrays).items():
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
    path = hdf5_of(tmp_path / "run.mat", **vectors, nu=np.full((1, 1), 0.5))
    guess = guessed(path).tree
    assert guess["spacing"] == {"y": "y", "x": "x"} and guess["time_step"] == "t"
    assert guess["axes"] == ["time", "y", "x"] and guess["parameters"] == {"nu": {"array": "nu"}}
    data = answered(path, **ANSWERS)
    (about,) = data.trajectories
    assert (about.spacing, about.time_step, about.parameters) == ((1, 0.25, 0.125), 0.5, {"nu": 0.5})
    for found, expected in zip(places(data), (T, Y, X), strict=True):
        np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(data.read(0, 1, 3)[:, 0, 0], U[1:3])
    assert opened(tmp_path).num_trajectories == 1, "files that end in .mat are found in a folder"


@pytest.mark.parametrize(
    ("places", "words"),
    [
        (
            np.arange(NUM_X + 1) / 8,
            r"expected 12 coordinates of x, got the shape \(13,\); .* the edges .* such as x: 0.1",
        ),
        (X + 0.1 * Y[:, None], r"got the shape \(8, 12\); .* curvilinear grids are not supported"),
        (np.where(X > 0.3, np.nan, X), r"x: expected increasing coordinates, got 0.0 to nan"),
    ],
)
def test_other_coordinates_are_refused_with_what_they_may_be(tmp_path, places, words):
    with pytest.raises(DataError, match=words):
        opened(hdf5_of(tmp_path / "run.h5", t=T, y=Y, x=places))


def write_dedalus(path):
    """Write tasks and scales as Dedalus does: each task has the labels of its axes, and scales of other names."""
    with h5py.File(path, "w") as file:
        names = {"x": "x_hash_4c1f", "z": "z_hash_8a02"}
        scales = {"sim_time": T, "timestep": np.full(len(T), 0.1), "iteration": np.arange(len(T)) * 10}
        for name, values in (scales | {names["x"]: Y, names["z"]: X}).items():
            file[f"scales/{name}"] = values
            file[f"scales/{name}"].make_scale()
        for task, shape in {"b": U.shape, "u": (len(T), 2, NUM_Y, NUM_X)}.items():
            file[f"tasks/{task}"] = np.broadcast_to(U if task == "b" else U[:, None], shape)
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
    guess = guessed(tmp_path / "snapshots_s1.h5").tree
    assert guess["axes"] == ["time", "x", "y"], "z, the last axis of two, is our y"
    assert guess["time_step"] == "scales/sim_time" and guess["spacing"] == {"y": "TODO", "x": "TODO"}
    assert guess["fields"]["u_1"] == {"array": "tasks/u", "axes": ["time", "component", "x", "y"], "index": 1}
    data = answered(tmp_path / "snapshots_s1.h5", **ANSWERS, spacing=spacing)
    assert data.trajectories[0].time_step == 0.5 and data.trajectories[0].spacing == (1, 0.125, 0.25)
    np.testing.assert_array_equal(data.read(0, 0, 2)[:, 0, 0], U[:2].transpose(0, 2, 1))


def test_truth_values_are_given_as_zeros_and_ones_and_never_predicted(tmp_path):
    mask = U[0] > 0
    path = hdf5_of(tmp_path / "run.h5", t=T, y=Y, x=X, solid=mask)
    data = opened(path, given={"solid": {"array": "solid", "axes": ["y", "x"]}})
    np.testing.assert_array_equal(data.read_given(0, 1, 3)[:, 0, 0], mask[None])
    hdf5_of(tmp_path / "all.h5", u=U > 0, t=T, y=Y, x=X)
    with pytest.raises(DataError, match="u: expected real numbers for the field 'u', got bool"):
        opened(tmp_path / "all.h5")
