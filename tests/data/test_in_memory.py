"""Trajectories in memory, of arrays, tensors and xarray: the values as they are, in our order."""

import numpy as np
import pytest
import torch
import xarray

from matey import MateyConfig, MateyModel, forecast
from matey.data import Coordinates, DataError, TrajectorySet, read_windows
from matey.data.from_xarray import from_xarray
from matey.data.windows import Window

FIELD = {"a": np.zeros((2, 3, 4, 4))}
LABELS = Coordinates(np.arange(4.0), "m")
PLANE = {"spacing": (0.25, 0.5), "boundary": ("wall", "periodic")}


def moving(num_trajectories=4, num_frames=8, size=16, dtype=torch.float64):
    """Waves that move along x, one cell a snapshot, as a solver in PyTorch would leave them."""
    phase = torch.rand(num_trajectories, 1, 1, 1, generator=torch.Generator().manual_seed(0)) * size
    t, y, x = (torch.arange(n, dtype=dtype) for n in (num_frames, size, size))
    wave = torch.sin(2 * torch.pi * (x + phase - t[:, None, None]) / size) + 0 * y[:, None]
    return wave.to(dtype)  # (n, t, y, x)


def test_arrays_and_tensors_are_read_frame_by_frame_without_a_copy():
    tensor = moving(2, 3).requires_grad_()
    array = np.zeros(tensor.shape, np.int16)
    data = TrajectorySet.from_arrays(
        "waves", {"height": tensor, "tracer": array}, **PLANE, time_step=0.1, units={"height": "m"},
        parameters={"speed": np.array([1, 2])},
    )  # fmt: skip
    about = data.trajectories[1]
    assert (about.grid, about.spacing, about.boundary) == ((1, 16, 16), (1.0, 0.25, 0.5), ("none", "wall", "periodic"))
    assert (about.num_frames, about.time_step, about.parameters, data.units) == (3, 0.1, {"speed": 2}, ("m", "?"))
    array[1, 2] = 7
    frames = data.read(1, 1, 3)
    assert frames.dtype == np.float32 and frames.shape == (2, 2, 1, 16, 16) and (frames[1, 1] == 7).all()
    np.testing.assert_array_equal(frames[:, 0, 0], tensor.detach()[1, 1:3].float())


def test_parameters_are_an_array_or_a_number_for_each_name():
    arrays = {"nu": np.array([0.1, np.nan]), "Re": torch.tensor([10, 20]), "M": 0.3, "g": [9, 8]}
    of_arrays = TrajectorySet.from_arrays("waves", FIELD, **PLANE, parameters=arrays)
    first, second = (about.parameters for about in of_arrays.trajectories)
    assert first == {"nu": 0.1, "Re": 10, "M": 0.3, "g": 9} and {*map(type, first.values())} == {float}
    assert np.isnan(second.pop("nu")) and second == {"Re": 20, "M": 0.3, "g": 8}


def test_types_of_pytorch_and_other_orders_of_bytes_are_read():
    values = np.arange(8.0).reshape(1, 2, 2, 2)
    for array in (torch.from_numpy(values).bfloat16(), values.astype(">f4"), values.astype("<i2")):
        data = TrajectorySet.from_arrays("s", {"a": array}, **PLANE)
        np.testing.assert_array_equal(data.read(0, 0, 2)[:, 0, 0], values[0].astype(np.float32))


@pytest.mark.parametrize("grid", [(5,), (4, 5), (3, 4, 5)])
def test_lines_planes_and_boxes_lie_along_the_last_of_z_y_x(grid):
    values = np.random.default_rng(0).normal(size=(2, 3, *grid))
    data = TrajectorySet.from_arrays("noise", {"a": values}, spacing=[1] * len(grid), boundary=["open"] * len(grid))
    assert data.trajectories[0].grid == (1,) * (3 - len(grid)) + grid
    np.testing.assert_array_equal(data.read(1, 0, 3)[:, 0].reshape(3, *grid), values[1].astype(np.float32))
    cells = tuple(slice(max(0, size - 3), size) for size in data.trajectories[0].grid)
    np.testing.assert_array_equal(data.read(1, 1, 3, cells), data.read(1, 1, 3)[:, :, *cells])


@pytest.mark.parametrize(
    ("fields", "changes", "words"),
    [
        ({}, {}, "got none"),
        ({"a": np.zeros((2, 3, 4))}, {}, r"arrays \(n, t, y, x\) of one shape, .* got a \(2, 3, 4\); array\[None\]"),
        (FIELD, {"boundary": ("wall", "wals")}, "expected boundaries periodic, .* got wals"),
        ({"a": np.ma.masked_less(np.eye(4)[None, None], 0.5)}, {}, "without a mask for a, got float64; put NaN"),
        (FIELD, {"parameters": {"nu": np.zeros(3)}}, "an array of one for each of 2 trajectories"),
        (FIELD, {"coordinates": {"time": LABELS}}, "expected 3 numbers along time that increase"),
    ],
)
def test_arrays_that_do_not_fit_are_a_sentence(fields, changes, words):
    with pytest.raises(DataError, match=f"^waves[:,] .*{words}|^waves, {words}"):
        TrajectorySet.from_arrays("waves", fields, **PLANE | changes)


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
    made = made.isel(trajectory=0)
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
