"""Meshes as openPMD's own library writes them in HDF5: one file for all iterations, or one for each."""

import h5py
import numpy as np
import pytest

from matey.data import DataError, open_dataset
from tests.support.described_files import answered, flow, guessed
from tests.support.laws import law

NUM_FRAMES, NUM_Y, NUM_X = 5, 6, 8
VALUES = np.random.default_rng(0).normal(size=(NUM_FRAMES, 3, NUM_Y, NUM_X)).astype("f4")  # E_x, E_y and the density
STEPS = [0, 50, 100, 200, 250]
TIMES = np.arange(NUM_FRAMES) * 0.5


def write_iteration(file, number, order="C", unit=9.5e10):
    root = file.require_group(f"data/{STEPS[number]}")
    root.attrs.update({"time": TIMES[number], "dt": 0.01, "timeUnitSI": 1e-15})
    file.attrs.update({"openPMD": np.bytes_("1.1.0"), "openPMDextension": np.uint32(0)})
    turn = slice(None, None, -1 if order == "F" else 1)
    about = {
        "axisLabels": np.array([b"y", b"x"])[turn],
        "gridSpacing": np.array([0.25, 0.125])[turn],
        "gridUnitSI": 1e-6,
        "dataOrder": np.bytes_(order),
        "geometry": np.bytes_("cartesian"),
    }
    field, density = root.create_group("fields/E"), root.create_dataset("fields/rho", data=VALUES[number, 2])
    field.attrs.update(about | {"unitDimension": np.array([1.0, 1, -3, -1, 0, 0, 0])})
    density.attrs.update(about | {"unitDimension": np.array([-2.0, 0, 0.5, 0, 0, 0, 0]), "unitSI": 1.0})
    for name, values in zip("xy", VALUES[number], strict=False):
        field[name] = values
        field[name].attrs["unitSI"] = unit
    field.create_group("z").attrs.update({"value": 0.0, "shape": np.array([NUM_Y, NUM_X]), "unitSI": unit})
    root["particles/electrons/position/x"] = np.zeros(100)


def write_files(folder, **about):
    for number, step in enumerate(STEPS):
        with h5py.File(folder / f"simData_{step:06d}.h5", "w") as file:
            write_iteration(file, number, **about)
    return folder / f"simData_{STEPS[1]:06d}.h5"


def write_groups(folder, **about):
    with h5py.File(folder / "simData.h5", "w") as file:
        for number in range(NUM_FRAMES):
            write_iteration(file, number, **about)
    return folder / "simData.h5"


def opened(path, **changed):
    return answered(path, system="plasma", boundary={"y": "periodic", "x": "open"}, **changed)


@pytest.mark.parametrize("write", [write_files, write_groups])
@law("order", ["C", "F"], quick=["F"])
def test_iterations_are_guessed_and_read_with_axes_cells_times_and_units(tmp_path, write, order):
    path = write(tmp_path, order=order)
    guess = guessed(path, tmp_path)
    assert guess.questions == ["system", "boundary.y", "boundary.x"] and "parameters" not in guess.tree
    data = opened(path, stride=1, first_frame=2, time_step={"attribute": "time"})
    assert data.fields == ("E_x", "E_y", "density")
    assert data.units == ("9.5e+10 m kg s-3 A-1", "9.5e+10 m kg s-3 A-1", "m-2 s0.5")
    (about,) = data.trajectories
    assert (about.num_frames, about.spacing, about.time_step) == (3, (1, 0.25, 0.125), 0.5)
    np.testing.assert_array_equal(data.read(0, 0, 3)[:, :, 0], VALUES[2:])
    np.testing.assert_array_equal(data.read(0, 1, 2)[:, :, 0], VALUES[3:4])
    np.testing.assert_array_equal(data.coordinates("time", [0]).values, TIMES[2:])


def test_each_folder_of_iterations_is_a_trajectory_of_its_own(tmp_path):
    for run in ("run_0", "run_1"):
        (tmp_path / run).mkdir()
        write_files(tmp_path / run)
    path = tmp_path / "run_1" / "simData_000050.h5"
    guess = guessed(path, tmp_path)
    assert (guess.tree["files"], guess.tree["concat"]) == ("run_*/simData_*.h5", "time")
    assert guess.tree["fields"]["E_x"] == "data/*/fields/E/x"
    data = answered(path, tmp_path, system="plasma", boundary={"y": "open", "x": "open"})
    assert [(about.name, about.num_frames) for about in data.trajectories] == [("run_0", 5), ("run_1", 5)]


def in_groups_of_files(folder, last):
    for part, steps in enumerate(([0, 1, 2], [3, last])):
        with h5py.File(folder / f"restart_{part}.h5", "w") as file:
            for number in steps:
                file[f"step_{number}/u"] = VALUES[min(number, 4), 0]
    groups = {"concat": "time", "fields": {"u": "step_*/u"}, "files": "restart_*.h5"}
    return open_dataset(folder, flow("y x", "open", **groups))


def test_snapshots_in_numbered_groups_of_several_files_follow_each_other(tmp_path):
    data = in_groups_of_files(tmp_path, last=4)
    assert data.num_trajectories == 1
    np.testing.assert_array_equal(data.read(0, 1, 5)[:, 0, 0], VALUES[1:, 0])


def test_a_snapshot_that_is_missing_in_the_second_file_is_refused(tmp_path):
    with pytest.raises(DataError, match="expected number 4 after 3, .* got 5; a snapshot is missing"):
        in_groups_of_files(tmp_path, last=5)


def test_a_component_that_is_one_number_is_named_as_such(tmp_path):
    with pytest.raises(DataError, match=r"data/0/fields/E/z: is 0 in all cells, with no array: leave it out\."):
        opened(write_files(tmp_path), fields={"E_z": "data/*/fields/E/z"})


def test_iterations_of_different_units_are_refused_unless_one_is_told(tmp_path):
    path = write_files(tmp_path)
    with h5py.File(path, "a") as file:
        file["data/50/fields/E/x"].attrs["unitSI"] = 1.0
    with pytest.raises(DataError, match=r"E_x: expected one unit, got '9.5e\+10 m kg s-3 A-1' in .*fields.E_x.unit\."):
        opened(path)
    told = {"E_x": {"array": "data/*/fields/E/x", "unit": "V/m"}}
    assert opened(path, fields=told).units == ("V/m",)


def test_azimuthal_modes_have_no_axes_by_name(tmp_path):
    with h5py.File(tmp_path / "modes.h5", "w") as file:
        file.attrs["openPMD"] = "1.1.0"
        item = file.create_dataset("data/0/fields/E/r", data=np.ones((3, NUM_Y, NUM_X)))
        item.parent.attrs.update({"axisLabels": np.array([b"r", b"z"]), "gridSpacing": np.array([0.1, 0.2])})
    assert guessed(tmp_path / "modes.h5").tree["axes"] == "TODO"
