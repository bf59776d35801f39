"""Fields between the cells of others and times as texts, as WRF writes both."""

import h5py
import numpy as np
import pytest
import xarray

from matey.data import DataError, open_dataset
from matey.data.index import Index
from tests.support.described_files import answered, flow, guessed
from tests.support.laws import law
from tests.support.paths import ROOT
from tests.support.wrf_files import NUM_X, NUM_Y, NUM_Z, name_of, write_wrf

ANSWERS = {
    "system": "weather",
    "spacing": {"z": 1, "y": 30000, "x": 30000},
    "boundary": dict.fromkeys("zyx", "open"),
}
SECONDS = 3 * 3600


def opened(path, **changes):
    return answered(path, **ANSWERS | changes)


def test_winds_between_the_cells_are_left_out_of_a_guess_which_says_why(tmp_path):
    write_wrf(tmp_path / name_of(0))
    guess = guessed(tmp_path / name_of(0))
    assert guess.tree["fields"] == {"pressure": "P", "PB": "PB", "T": "T"} and guess.tree["time_step"] == "XTIME"
    assert "spacing:\n  z: TODO" in guess.text and "  x: 30000.0  # the file's attribute DX" in guess.text
    assert guess.questions == ["system", "spacing.z", "boundary.z", "boundary.y", "boundary.x"]
    said = next(note for note in guess.notes if "lie between the cells" in note)
    assert f"U (4, {NUM_Z}, {NUM_Y}, {NUM_X + 1}), V " in said and "W (4, " in said and "TSLB" not in said
    assert "parameters" not in guess.tree and "there are SCHEME_0, SCHEME_1" in guess.text
    assert "Times" not in guess.text and "ITIMESTEP" not in guess.text


def test_the_line_that_a_guess_gives_averages_winds_to_the_cells(tmp_path):
    values = write_wrf(tmp_path / name_of(0))["U"]
    ds = xarray.open_dataset(tmp_path / name_of(0))[["P", "U"]]
    ds.to_netcdf(tmp_path / "two.nc")
    said = next(note for note in guessed(tmp_path / "two.nc").notes if "lie between the cells" in note)
    exec(said.partition("in xarray: ")[2], {"ds": ds})
    ds.to_netcdf(tmp_path / "centred.nc")
    data = opened(tmp_path / "centred.nc")
    assert data.fields == ("pressure", "velocity_x")
    np.testing.assert_allclose(data.read(0, 0, 4)[:, 1], (values[..., 1:] + values[..., :-1]) / 2, rtol=1e-6, atol=1e-6)


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


@law("kind", ["NETCDF4", "NETCDF3_64BIT_OFFSET", "NETCDF3_64BIT_DATA"], quick=["NETCDF3_64BIT_OFFSET"])
@pytest.mark.parametrize("minutes", [True, False])
def test_files_without_an_ending_follow_each_other_by_their_minutes_or_texts(tmp_path, kind, minutes):
    values = [write_wrf(tmp_path / name_of(number), number, 1, kind, minutes) for number in range(4)]
    data = opened(tmp_path / name_of(1))
    (about,) = data.trajectories
    assert about.num_frames == 4 and about.time_step == (SECONDS / 60 if minutes else SECONDS)
    np.testing.assert_array_equal(data.read(0, 1, 3)[:, 0], np.concatenate([values[1]["P"], values[2]["P"]]))
    times = data.coordinates("time", [0])
    assert times.unit == ("minutes since 2000-01-24 12:00:00" if minutes else "seconds since 1970-01-01")
    assert np.diff(times.values).tolist() == [about.time_step] * 3


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
    index = Index("code")
    open_dataset(tmp_path / "matey.yaml", index=index)
    assert len(Index("code", index.text())._earlier) == 1, "a run that goes on describes the file anew"
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
    assert "to the cells first, in NumPy: (u[:, :, 1:] + u[:, :, :-1]) / 2\n" in guess.text


@pytest.mark.parametrize("with_names", [True, False])
def test_of_winds_one_shorter_than_the_cells_the_fields_on_the_cells_are_kept(tmp_path, with_names):
    """As the ocean model ROMS has them, which writes the faces inside the domain alone."""
    axes = {"zeta": ("eta_rho", "xi_rho"), "u": ("eta_rho", "xi_u"), "v": ("eta_v", "xi_rho")}
    arrays = {name: (("ocean_time", *of), np.zeros((5, 8 - (of[0] == "eta_v"), 12 - (of[1] == "xi_u")), "f4"))
              for name, of in axes.items()}  # fmt: skip
    if with_names:
        xarray.Dataset(arrays, {"ocean_time": np.arange(5.0)}).to_netcdf(tmp_path / "a.nc")
    else:
        with h5py.File(tmp_path / "a.nc", "w") as file:
            for name, (_, values) in arrays.items():
                file[name] = values
            file["t"], file["y"], file["x"] = np.arange(5.0), np.arange(8.0), np.arange(12.0)
    guess = guessed(tmp_path / "a.nc")
    assert guess.tree["fields"] == {"zeta": "zeta"} and guess.tree["axes"] == ["time", "y", "x"]
    assert (
        "u (5, 8, 11), v (5, 7, 12). To have them, average them to the cells first; they have no value bey"
        in guess.text
    )


def test_one_wind_beside_one_field_is_what_lies_between(tmp_path):
    for more in (-1, 1):
        with h5py.File(tmp_path / f"{more}.h5", "w") as file:
            file["u"], file["p"] = np.zeros((5, 8, 12 + more), "f4"), np.zeros((5, 8, 12), "f4")
            file["t"], file["y"], file["x"] = np.arange(5.0), np.arange(8.0), np.arange(12.0)
        assert guessed(tmp_path / f"{more}.h5").tree["fields"] == {"pressure": "p"}


def test_components_one_more_than_others_are_no_staggered_grid(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["velocity"], file["b"] = np.zeros((5, 8, 12, 3), "f4"), np.zeros((5, 8, 12, 2), "f4")
        file["t"], file["y"], file["x"] = np.arange(5.0), np.arange(8.0), np.arange(12.0)
    vectors = {"velocity_x", "velocity_y", "velocity_z", "magnetic_x", "magnetic_y"}
    assert guessed(tmp_path / "a.h5").tree["fields"].keys() == vectors
