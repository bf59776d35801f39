"""Trajectories of xarray Datasets: the values of the Dataset in our order, read no earlier than they are used."""

import numpy as np
import pytest
import xarray

from matey import MateyConfig, MateyModel, forecast
from matey.data import DataError, read_windows
from matey.data.from_xarray import from_xarray
from matey.data.windows import Window

ENDS = {"lat": "wall", "lon": "periodic"}


def weather(**coords):
    random = np.random.default_rng(0)
    dims = ("time", "lat", "lon")
    return xarray.Dataset(
        {
            "t2m": (dims, random.normal(size=(6, 4, 8)).astype("f4"), {"units": "K"}),
            "u10": (("lat", "lon", "time"), random.normal(size=(4, 8, 6)).astype("f4"), {"units": "m/s"}),
            "sun": (dims, random.normal(size=(6, 4, 8))),
            "land": (dims[1:], random.normal(size=(4, 8)) > 0),
            "issued": (dims, np.zeros((6, 4, 8), "datetime64[ns]")),
            "time_bnds": (("time", "bnds"), np.zeros((6, 2))),
        },
        {
            "time": np.datetime64("2020-01-01T00", "ns") + np.arange(6) * np.timedelta64(6, "h"),
            "lat": ("lat", [60.0, 50.0, 40.0, 30.0], {"units": "degrees"}),
            "lon": ("lon", np.arange(8) * 45.0, {"units": "degrees"}),
            **coords,
        },
    )


def test_values_steps_and_units_are_those_of_the_dataset():
    dataset = weather()
    data = from_xarray(dataset, "weather", boundary=ENDS, given=["sun", "land"])
    (about,) = data.trajectories
    assert data.fields == ("t2m", "u10") and data.units == ("K", "m/s") and data.given == ("sun", "land")
    assert about.time_step == 6 * 3600 and data.time_unit == "s" and data.length_unit == "degrees"
    assert about.grid == (1, 4, 8) and about.spacing == (1, 10, 45) and about.boundary == ("none", "wall", "periodic")
    expected = dataset.isel(lat=slice(None, None, -1)).transpose("time", "lat", "lon", ...)
    read = data.read(0, 1, 4, (slice(0, 1), slice(1, 3), slice(2, 8)))[:, :, 0]
    for index, name in enumerate(data.fields):
        np.testing.assert_array_equal(read[:, index], expected[name].values[1:4, 1:3, 2:8])
    (batch,) = read_windows([data], [Window(0, 0, 1, 2)], num_frames=2)
    np.testing.assert_allclose(batch.given[0, :3, 0, 0], expected["sun"].values[1:4], rtol=1e-6)
    np.testing.assert_array_equal(batch.given[0, 0, 1, 0], expected["land"].values)


def test_trajectories_and_dimensions_of_other_names_are_told():
    values = np.random.default_rng(0).normal(size=(3, 5, 4, 2))
    dataset = xarray.Dataset({"a": (("row", "day", "col", "member"), values)})
    data = from_xarray(
        dataset,
        "rows",
        axes={"row": "y", "day": "time", "col": "x"},
        boundary={"row": "open", "col": "open"},
        spacing={"row": 0.5, "col": 0.25},
        time_step=2.0,
    )
    assert data.num_trajectories == 2 and data.trajectories[1].time_step == 2.0
    np.testing.assert_array_equal(data.read(1, 0, 5)[:, 0, 0], values[..., 1].transpose(1, 0, 2).astype("f4"))


@pytest.mark.parametrize(
    ("change", "asked", "words"),
    [
        ({}, {"boundary": {"lat": "wall"}}, "boundary: expected the dimensions lat, lon, got {.lat.: .wall.}"),
        ({"lon": ("lon", np.arange(8.0) ** 2)}, {}, "weather, lon: expected evenly spaced .* or give spacing"),
        ({"time": list("abcdef")}, {}, "weather, time: expected numbers or dates as coordinates, .* give time_step"),
        ({}, {"axes": {"lat": "latitude"}}, "expected dimensions that are trajectory, time, z, y and x"),
        ({}, {"boundary": "periodic"}, "boundary: expected the dimensions lat, lon, got periodic"),
        ({}, {"fields": ["t2m", "issued"]}, "expected a variable of real numbers, got issued of datetime64"),
        ({}, {"parameters": ["land"]}, "parameters: expected land to be one number, got the dimensions lat, lon"),
    ],
)
def test_what_does_not_fit_is_said(change, asked, words):
    with pytest.raises(DataError, match=words):
        from_xarray(weather(**change), "weather", **{"boundary": ENDS, **asked})


def test_forecasts_are_labelled_with_the_coordinates_and_dates_of_the_dataset():
    dataset = weather()[["t2m"]]
    config = MateyConfig(("t2m",), {"patches": [[1, 1, 4, 4]], "set": "uniform"}, num_heads=3, width=24, num_blocks=1)
    model = MateyModel(config)
    data = from_xarray(dataset, "weather", boundary=ENDS)
    made = forecast(model, data, steps=4, history=1).to_xarray()
    made = made.isel(trajectory=0).rename(y="lat", x="lon")
    np.testing.assert_array_equal(made["lat"], dataset["lat"][::-1])
    np.testing.assert_array_equal(made["lon"], dataset["lon"])
    np.testing.assert_array_equal(made["time"], dataset["time"][1:5])
    assert made["lat"].attrs["units"] == "degrees"
    error = made["t2m"] - dataset["t2m"]  # xarray goes by the labels
    assert error.sizes == {"time": 4, "lat": 4, "lon": 8} and np.isfinite(error).all()
    persistence = dataset["t2m"].isel(time=0) - dataset["t2m"].isel(time=slice(1, 5))  # of a model that is not trained
    np.testing.assert_allclose(error, persistence.transpose(*error.dims).sel(lat=error["lat"]), atol=1e-6)


def test_dates_of_other_calendars_keep_their_calendar():
    times = xarray.date_range("2001-02-27", periods=6, freq="1D", calendar="noleap", use_cftime=True)
    data = from_xarray(weather(time=times), "weather", boundary=ENDS, fields=["t2m"])
    own = data.coordinates("time", [0])
    assert data.trajectories[0].time_step == 86400 and own.calendar == "noleap"
    assert own.unit == "seconds since 1970-01-01" and own.values[0] == (31 * 365 + 31 + 26) * 86400


def test_parameters_are_numbers_of_each_trajectory_or_of_all():
    values = np.zeros((2, 3, 4, 4))
    dataset = xarray.Dataset(
        {"a": (("run", "time", "y", "x"), values), "nu": ("run", [0.1, 0.2]), "g": 9.81},
        {"time": np.arange(3.0), "y": np.arange(4), "x": np.arange(4)},
    )
    ends = {"y": "open", "x": "open"}
    data = from_xarray(dataset, "runs", boundary=ends, parameters=["nu", "g"])
    assert data.fields == ("a",)
    assert [each.parameters for each in data.trajectories] == [{"nu": 0.1, "g": 9.81}, {"nu": 0.2, "g": 9.81}]
    with pytest.raises(DataError, match="expected time to be one number for each run, got the dimensions time"):
        from_xarray(dataset, "runs", boundary=ends, parameters=["time"])


def test_an_array_with_a_name_is_a_dataset_of_one_field():
    array = weather()["t2m"]
    assert from_xarray(array, "weather", boundary=ENDS).fields == ("t2m",)
