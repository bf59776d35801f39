"""What can be guessed of a file's description, and that the rest is asked for."""

import sys

import h5py
import numpy as np
import pytest

from matey.data import DataError, open_dataset
from tests.support.described_files import KINDS, answered, guessed, write
from tests.support.laws import law
from tests.support.layout_files import NUM_X, NUM_Y, coded
from tests.support.programs import start

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
