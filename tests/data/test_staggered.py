"""Fields between the cells of others and times as texts, as WRF writes both."""

import h5py
import numpy as np
import pytest

from matey.data import DataError
from tests.support.described_files import answered, flow, guessed
from tests.support.paths import ROOT
from tests.support.wrf_files import NUM_X, NUM_Y, NUM_Z, name_of, write_wrf

ANSWERS = {
    "system": "weather",
    "spacing": {"z": 1, "y": 30000, "x": 30000},
    "boundary": dict.fromkeys("zyx", "open"),
}


def opened(path, **changes):
    return answered(path, **ANSWERS | changes)


def test_winds_between_the_cells_are_left_out_of_a_guess_which_says_why(tmp_path):
    write_wrf(tmp_path / name_of(0))
    guess = guessed(tmp_path / name_of(0))
    assert guess.tree["fields"] == {"pressure": "P", "PB": "PB", "T": "T"} and guess.tree["time_step"] == "XTIME"
    ends = [f"boundary.{axis}" for axis in "zyx"]
    assert guess.questions == ["system", *(f"spacing.{axis}" for axis in "zyx"), *ends]
    said = next(note for note in guess.notes if "lie between the cells" in note)
    assert f"U (4, {NUM_Z}, {NUM_Y}, {NUM_X + 1}), V " in said and "W (4, " in said and "TSLB" not in said
    assert "parameters" not in guess.tree and "SCHEME_0, SCHEME_1" in guess.text
    assert "Times" not in guess.text and "ITIMESTEP" not in guess.text


def test_the_lines_of_the_docs_average_all_three_winds(tmp_path, monkeypatch):
    of_files = [write_wrf(tmp_path / name_of(number), number, 1) for number in range(4)]
    page = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
    code = next(block for block in page.split("```") if block.startswith("python") and "_stag" in block)
    monkeypatch.chdir(tmp_path)
    exec(code.removeprefix("python"), {})
    data = opened(next(tmp_path.glob("centred*")))
    values = {name: np.concatenate([each[name] for each in of_files]) for name in "UVW"}
    assert {"velocity_x", "velocity_y", "velocity_z"} < set(data.fields)
    read = dict(zip(data.fields, np.moveaxis(data.read(0, 0, 4), 1, 0), strict=True))
    for name, axis in {"velocity_x": 3, "velocity_y": 2, "velocity_z": 1}.items():
        own = np.moveaxis(values["UVW"["xyz".index(name[-1])]], axis, 0)
        np.testing.assert_allclose(np.moveaxis(read[name], axis, 0), (own[1:] + own[:-1]) / 2, rtol=1e-6, atol=1e-6)


def test_a_description_of_fields_and_what_lies_between_them_is_refused(tmp_path):
    write_wrf(tmp_path / name_of(0))
    for fields in ({"pressure": "P", "velocity_x": "U"}, {"velocity_x": "U", "pressure": "P"}):
        with pytest.raises(
            DataError, match=r"lies between the cells along x, .* averaged .* first: docs/data.md shows how"
        ):
            opened(tmp_path / name_of(0), fields=fields)


@pytest.mark.parametrize("texts", ["characters", "texts", "of any length"])
def test_dates_as_texts_are_times_and_what_is_no_date_is_refused(tmp_path, texts):
    dates = ["2020-02-28T23:00", "2020-02-29T00:00", "2020-02-29T01:00"]
    for name, written in {"a": dates, "b": ["eleven", *dates[1:]]}.items():
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            file["u"], file["y"], file["x"] = np.zeros((3, 8, 12), "f4"), np.arange(8.0), np.arange(12.0)
            rows = {"characters": np.array([[*each.ljust(16, "\0")] for each in written], "S1")}
            file["times"] = rows.get(texts, np.array(written, "S16") if texts == "texts" else written)
    changes = flow(time_step="times")
    assert guessed(tmp_path / "a.h5").tree["files"] == "a.h5"
    data = opened(tmp_path / "a.h5", **changes)
    assert data.trajectories[0].time_step == 3600
    assert data.coordinates("time", [0]).values[1] == 1582934400
    with pytest.raises(
        DataError, match="b.h5, times: expected dates such as .*, got 'eleven'; give time_step as a number"
    ):
        opened(tmp_path / "b.h5", **changes)


def test_without_names_of_axes_a_staggered_grid_is_known_by_its_sizes(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["p"], file["u"], file["v"] = (np.zeros((5, 8 + y, 12 + x), "f4") for y, x in ((0, 0), (0, 1), (1, 0)))
        file["t"], file["y"], file["x"] = np.arange(5.0), np.arange(8.0), np.arange(12.0)
    guess = guessed(tmp_path / "a.h5")
    assert guess.tree["fields"] == {"pressure": "p"} and guess.tree["axes"] == ["time", "y", "x"]
    assert "to the cells first, as docs/data.md shows" in guess.text


def test_components_one_more_than_others_are_no_staggered_grid(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["velocity"], file["b"] = np.zeros((5, 8, 12, 3), "f4"), np.zeros((5, 8, 12, 2), "f4")
        file["t"], file["y"], file["x"] = np.arange(5.0), np.arange(8.0), np.arange(12.0)
    vectors = {"velocity_x", "velocity_y", "velocity_z", "magnetic_x", "magnetic_y"}
    assert guessed(tmp_path / "a.h5").tree["fields"].keys() == vectors
