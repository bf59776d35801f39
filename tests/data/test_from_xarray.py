"""Trajectories of xarray Datasets: the values of the Dataset in our order, read no earlier than they are used."""

import numpy as np
import pytest
import xarray

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
    expected = dataset.isel(lat=slice(None, None, -1)).transpose("time", "lat", "lon")
    read = data.read(0, 1, 4, (slice(0, 1), slice(1, 3), slice(2, 8)))[:, :, 0]
    for index, name in enumerate(data.fields):
        np.testing.assert_array_equal(read[:, index], expected[name].values[1:4, 1:3, 2:8])
    (batch,) = read_windows([data], [Window(0, 0, 1, 2)], num_frames=2)
    np.testing.assert_allclose(batch.given[0, :3, 0, 0], expected["sun"].values[1:4], rtol=1e-6)
    np.testing.assert_array_equal(batch.given[0, 0, 1, 0], expected["land"].values)


def test_a_dataset_on_disk_is_read_a_few_frames_at_a_time(tmp_path, monkeypatch):
    weather().to_netcdf(tmp_path / "weather.nc")
    with xarray.open_dataset(tmp_path / "weather.nc") as dataset:
        asked, plain = [], np.asarray
        data = from_xarray(dataset, "weather", boundary=ENDS, fields=["t2m"])

        def noting(values, *args, **kwargs):
            asked.append(getattr(values, "shape", ()))
            return plain(values, *args, **kwargs)

        monkeypatch.setattr("matey.data.trajectories.np.asarray", noting)
        data.read(0, 2, 4)
        assert asked and max(shape[0] for shape in asked if len(shape) == 3) == 2
        assert not dataset["t2m"]._in_memory


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
        ({}, {"fields": ["t3m"]}, "expected variables t3m, the dataset has t2m, u10"),
        ({}, {"fields": ["t2m", "land"]}, "land: expected the dimensions time, lat, lon, .* got lat, lon"),
        ({}, {"boundary": {"lat": "wall"}}, "boundary: expected the dimensions lat, lon, got lat"),
        ({"lon": ("lon", np.arange(8.0) ** 2)}, {}, "weather, lon: expected evenly spaced .* or give spacing"),
        ({"time": list("abcdef")}, {}, "weather, time: expected numbers or dates as coordinates, .* give time_step"),
    ],
)
def test_what_does_not_fit_is_said(change, asked, words):
    with pytest.raises(DataError, match=words):
        from_xarray(weather(**change), "weather", **{"boundary": ENDS, **asked})


def test_dimensions_that_nothing_tells_are_asked_for():
    dataset = xarray.Dataset({"a": (("day", "y", "x"), np.zeros((3, 4, 4)))})
    with pytest.raises(
        DataError, match="expected variables with a dimension of time, got the dimensions day, y, x; name"
    ):
        from_xarray(dataset, "days", boundary={"y": "open", "x": "open"})
    with pytest.raises(DataError, match="each once, got time, plank, x; say in axes"):
        from_xarray(dataset.rename(day="time", y="plank"), "days", boundary={"plank": "open", "x": "open"})
    with pytest.raises(DataError, match="the dimension y has no coordinates; give spacing"):
        from_xarray(dataset.rename(day="time"), "days", boundary={"y": "open", "x": "open"})
