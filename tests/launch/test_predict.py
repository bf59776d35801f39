"""Forecasts into a file from the command line, with film and series."""

import csv
import sys

import numpy as np
import pytest
import xarray
from PIL import Image

from matey.data import open_dataset
from matey.data.split_record import seen_text
from matey.data.splits import fingerprints
from tests.support.programs import start, start_ranks
from tests.support.small_files import write_waves


@pytest.fixture(scope="module")
def model_folder(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained") / "model"
    model.save_pretrained(folder)
    return folder


@pytest.fixture
def predict(model_folder, tmp_path):
    data = write_waves(tmp_path, "shallow_water")

    def run(*more):
        command = [sys.executable, "launch/predict.py", "--checkpoint", model_folder, "--data", data]
        return start([*command, "--out", tmp_path / "swe.nc", "--steps", "12", "--lead", "4", *more])

    return run


def test_file_film_and_series_are_of_the_same_forecast(predict, tmp_path):
    probes = ("--probe", "8,5", "--probe", "0,8,6", "--probe", "0,8,5")  # the last is the first again
    result = predict("--trajectories", "2,0", "--conserve", *probes, "--animate", tmp_path / "swe.gif")
    assert result.returncode == 0 and result.stderr == "", result.stderr
    assert "Rollouts of shallow_water keep no totals: nothing is known to be conserved" in result.stdout
    assert "swe.nc: trajectories: 2, snapshots of each: 12." in result.stdout and "VRMSE at step 10" in result.stdout
    with xarray.open_dataset(tmp_path / "swe.nc") as found, Image.open(tmp_path / "swe.gif") as film:
        assert found.trajectory.values.tolist() == [2, 0] and film.n_frames == 12
        rows = list(csv.DictReader((tmp_path / "swe.probes.csv").open()))
        assert [row["step"] for row in rows[:3]] == ["-1", "0", "1"] and len(rows) == 2 * 2 * 14
        for row in rows:
            assert bool(row["water_height"]) == (int(row["step"]) > 0)
            assert bool(row["water_height_truth"]) == (int(row["step"]) <= 10)  # the trajectory has 12 frames
            if row["water_height"]:
                place = found.water_height.sel(trajectory=int(row["trajectory"]), time=float(row["time"]))
                assert np.isclose(float(row["water_height"]), place.values[int(row["y"]), int(row["x"])], rtol=1e-6)
    assert (tmp_path / "swe.probes.png").read_bytes().startswith(b"\x89PNG")


def test_errors_on_what_the_model_was_trained_on_are_said_to_flatter_it(model_folder, predict, tmp_path):
    data = open_dataset(tmp_path)
    seen = model_folder / "seen.txt"
    seen.write_text(seen_text([fingerprints(data, [0, 2])], [[0, 2]]))
    try:
        known, new = predict("--trajectories", "0,1,2"), predict("--trajectories", "1", "--overwrite")
    finally:
        seen.unlink()
    assert known.returncode == new.returncode == 0, known.stderr + new.stderr
    words = "the model was trained on 2 of these 3 trajectories"
    assert known.stdout.endswith("their errors flatter it.\n") and words in known.stdout and "flatter" not in new.stdout


@pytest.mark.slow
def test_ranks_that_share_the_tokens_forecast_what_one_process_does(model_folder, tmp_path):
    data = write_waves(tmp_path, "shallow_water")
    command = ["launch/predict.py", "--checkpoint", model_folder, "--data", data, "--steps", "6", "--lead", "3"]
    one = start([sys.executable, *command, "--out", tmp_path / "one.nc"])
    # The first flag as by the deepspeed launcher.
    two = start_ranks(2, command[0], "--local_rank=0", "--threads", "1", *command[1:], "--out", tmp_path / "two.nc")
    assert (one.returncode, two.returncode) == (0, 0), two.stderr
    with xarray.open_dataset(tmp_path / "one.nc") as expected, xarray.open_dataset(tmp_path / "two.nc") as found:
        size = float(expected.water_height.std())  # some values are near zero
        assert np.allclose(found.water_height, expected.water_height, rtol=1e-5, atol=1e-5 * size)


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (("--out", "swe.txt"), "swe.txt ends in .txt; expected .nc"),
        (("--animate", "swe.avi"), "--animate: swe.avi ends in .avi; a film is a .gif or an .mp4"),
        (("--probe", "16,0"), "The probe 16,0 is no cell: the grid has z, y, x = 1, 16, 16"),
        (("--start", "99"), "can begin at 0 to 10; got start 99"),
    ],
)
def test_a_mistake_is_one_sentence_and_no_file(flags, sentence, model_folder, run_here, tmp_path):
    data = write_waves(tmp_path, "shallow_water")
    command = ["launch/predict.py", "--checkpoint", model_folder, "--data", data, "--out", tmp_path / "swe.nc"]
    status, _, error = run_here(*command, "--steps", "12", "--lead", "4", *flags)
    assert status == 2 and sentence in error and "Traceback" not in error, error
    assert len(error.splitlines()) == 1 and not (tmp_path / "swe.nc").exists()


def test_a_file_that_is_there_is_replaced_only_on_demand(predict, tmp_path):
    (tmp_path / "swe.nc").write_text("mine")
    assert "swe.nc exists already" in predict().stderr
    assert (tmp_path / "swe.nc").read_text() == "mine"
    assert predict("--overwrite").returncode == 0
    with xarray.open_dataset(tmp_path / "swe.nc") as found:
        assert found.sizes["trajectory"] == 3


def test_a_full_disk_is_a_sentence(model_folder, tmp_path):
    data, out = write_waves(tmp_path, "shallow_water"), tmp_path / "f.nc"
    flags = ["--checkpoint", model_folder, "--data", data, "--steps", "12", "--out", out]
    # A limit on the size of files fails as a full disk does.
    result = start([sys.executable, "launch/predict.py", *flags], limit_file_bytes=30_000)
    assert result.returncode == 2 and "Traceback" not in result.stderr, result.stderr
    assert f"error: Cannot write to {out} (" in result.stderr
