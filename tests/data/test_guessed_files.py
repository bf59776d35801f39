"""Files beside one that hold its other fields are found by their names and shapes."""

import re

import numpy as np
import pytest
import xarray
import yaml

from matey.data import DataError, open_dataset
from tests.support.described_files import answered, describe, flow, guessed, write

ANSWERS = flow("y x")


def write_fields(folder, *names, shape=(8, 12)):
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        np.save(folder / f"{name}.npy", np.full(shape, number, "f4"))


def fields_of(path, beside=None):
    return yaml.safe_load(guessed(path, beside).text)["fields"]


def test_snapshots_of_fields_in_files_of_their_own_are_read_by_the_guess(tmp_path):
    for run in range(2):
        write_fields(tmp_path / f"run_{run}", *(f"{field}_{number:04d}" for field in "uvp" for number in range(3)))
    path = tmp_path / "run_0" / "u_0001.npy"
    assert fields_of(path, tmp_path) == {
        "velocity_x": "array",
        "pressure": {"file": "run_*/p_*.npy", "array": "array"},
        "velocity_y": {"file": "run_*/v_*.npy", "array": "array"},
    }
    data = answered(path, tmp_path, **ANSWERS)
    assert [about.num_frames for about in data.trajectories] == [3, 3]
    assert data.read(0, 1, 2)[0, :, 0, 0, 0].tolist() == [1, 7, 4]  # what each file was filled with


@pytest.mark.parametrize("name", ["sim_tracer", "sim_velocity_x"])
def test_one_of_the_names_is_enough_if_it_is_that_of_a_field(tmp_path, name):
    write_fields(tmp_path, "sim_tracer", "sim_velocity_x", shape=(3, 6, 8, 12))
    assert set(fields_of(tmp_path / f"{name}.npy")) == {"tracer", "velocity_x"}


@pytest.mark.parametrize("other", ["rho_test", "other", "run_rho", "rho_0002"])
def test_files_of_other_parts_or_names_are_not_taken_for_fields(tmp_path, other):
    write_fields(tmp_path, "rho_train", other, shape=(3, 6, 8, 12))
    assert fields_of(tmp_path / "rho_train.npy") == {"array": "array"}


def test_files_of_other_shapes_and_damaged_ones_are_left_out(tmp_path):
    write_fields(tmp_path, "u", "v", shape=(6, 8, 12))
    write_fields(tmp_path, "depth")
    (tmp_path / "p.npy").write_bytes(b"no array")
    assert set(fields_of(tmp_path / "u.npy")) == {"velocity_x", "velocity_y"}


def test_a_file_with_several_fields_is_taken_to_have_all_of_them(tmp_path):
    write(tmp_path)
    (tmp_path / "a.nc").rename(tmp_path / "u.nc")
    (tmp_path / "v.nc").write_bytes((tmp_path / "u.nc").read_bytes())
    assert not any("file" in source for source in fields_of(tmp_path / "u.nc").values() if isinstance(source, dict))


def write_netcdf_fields(folder, **changes):
    """A file for u, and one for v that differs from it."""
    places = {"time": np.arange(3.0), "y": np.arange(8.0), "x": np.arange(8.0)}
    for name, own in (("u", {}), ("v", changes)):
        values = xarray.DataArray(np.random.default_rng(len(name)).random((3, 8, 8)), places | own, ("time", "y", "x"))
        (values if name == "u" else values.transpose("time", "x", "y")).to_dataset(name=name).to_netcdf(
            folder / f"{name}.nc"
        )
    guess = yaml.safe_load(guessed(folder / "u.nc").text)
    describe(folder, guess | {"system": "s", "boundary": ANSWERS["boundary"]})
    return guess["fields"]


def test_axes_of_another_order_are_guessed_by_their_names_or_else_refused(tmp_path):
    fields = write_netcdf_fields(tmp_path)
    assert fields["velocity_y"] == {"file": "v.nc", "array": "v", "axes": ["time", "x", "y"]}
    data = open_dataset(tmp_path)
    np.testing.assert_array_equal(*data.read(0, 1, 2)[0])  # both were drawn alike, and one of them was turned
    text = (tmp_path / "matey.yaml").read_text()
    (tmp_path / "matey.yaml").write_text(text.replace("    axes:\n    - time\n    - x\n    - y\n", ""))
    with pytest.raises(
        DataError, match=r"v.nc, v: its axes are called time, x, y, .* has time, y, x; write axes: \[time, x, y\]"
    ):
        open_dataset(tmp_path)


@pytest.mark.parametrize("changed", [{"x": 2.0 * np.arange(8)}, {"time": 5.0 + np.arange(3)}])
def test_fields_on_other_grids_or_at_other_times_are_refused(tmp_path, changed):
    write_netcdf_fields(tmp_path, **changed)
    (axis,) = changed
    with pytest.raises(
        DataError, match=rf"v.nc, {axis}: expected the same coordinates along {axis} for 'velocity_y' as in .*u"
    ):
        open_dataset(tmp_path)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (
            ["run0/rho", "run1/rho", "run2/rho"],
            "3 files are named .* and files takes 1 of them: write run\\*/rho.npy there",
        ),
        (["a0_rho", "a1_rho", "b0_rho"], "2 files are named like this one .*: write a\\*_rho.npy there"),
    ],
)
def test_files_that_a_guess_leaves_out_are_said(tmp_path, names, said):
    for name in names:
        write_fields((tmp_path / name).parent, name.split("/")[-1], shape=(3, 8, 12))
    assert re.search(said, guessed(tmp_path / f"{names[0]}.npy", tmp_path).text)
    assert "named like" not in guessed(tmp_path / f"{names[-1]}.npy", (tmp_path / names[-1]).parent).text
