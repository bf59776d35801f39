"""Forecasts lie at the coordinates of the files that they are made from, so that xarray compares the two."""

import h5py
import numpy as np
import pytest
import torch
import xarray

import matey
from matey.data import DataError, TrajectorySet, open_dataset
from matey.data.splits import Split
from matey.data.to_the_well import write_the_well
from matey.data.trajectories import Coordinates
from matey.evaluate.forecasts.formats import FormatError
from matey.evaluate.forecasts.request import OTHER_TIMES, ForecastRequest
from tests.support.described_files import describe, flow
from tests.support.laws import law
from tests.support.models import PATCHES, make_model
from tests.support.small_files import write_swe
from tests.support.snapshot_files import COMMON, VALUES

FRAMES, CELLS, STEPS = 8, 16, 10  # two frames are known, so that the forecast goes four beyond the data
TIMES = 3600.0 + 600.0 * np.arange(FRAMES)
UNITS = {"dates": "hours since 2001-02-03 04:05:06", "a plain unit": "s", "no unit": None}


@pytest.fixture(scope="module")
def model():
    return make_model(PATCHES)


def write(folder, starts=(0.0, 0.0), units="s", files=None):
    """Files of a trajectory each, with latitudes that decrease and coordinates that begin anywhere."""
    for number, start in enumerate(starts):
        values = np.random.default_rng(number).normal(3, 1, (FRAMES, CELLS, CELLS))
        axes = {
            "time": start + TIMES,
            "lat": 40.5 - 0.1 * np.arange(CELLS),
            "lon": (7 + np.arange(CELLS) / 7).astype("f4"),
        }
        data = xarray.Dataset({"h": (tuple(axes), values.astype("f4"))}, axes)
        data.lat.attrs["units"] = "degrees_north"
        data.time.attrs.update({} if units is None else {"units": units})
        data.to_netcdf(folder / f"{number}.nc")
    named = {} if files is None else {"files": files}
    sides = {"time_step": "time", "spacing": {"y": "lat", "x": "lon"}}
    return describe(folder, flow(system="waves", fields={"water_height": "h"}, **sides, **named))


def truth_of(folder, number):
    return xarray.load_dataset(folder / f"{number}.nc").h


def test_fields_keep_the_names_that_their_files_give_them(tmp_path, model):
    path, names = write(tmp_path), {"long_name": "Sea surface height", "standard_name": "sea_surface_height"}
    for number in range(2):
        with h5py.File(tmp_path / f"{number}.nc", "a") as file:
            file["h"].attrs.update(names)
    made = matey.forecast(model, matey.open_dataset(path), steps=1).to_xarray()
    assert names.items() <= made.water_height.attrs.items()


@law("units", UNITS.values(), quick=[UNITS["dates"]], ids=list(UNITS))
def test_a_forecast_less_the_truth_is_the_error_where_there_is_truth(tmp_path, tmp_path_factory, model, units):
    data, out = matey.open_dataset(write(tmp_path, units=units)), tmp_path_factory.mktemp("out")
    forecasts = matey.forecast(model, data, steps=STEPS, start=1)
    forecasts.write(out / "f.zarr")
    forecasts.write(out / "f.nc")
    with xarray.open_dataset(out / "f.nc") as netcdf, xarray.open_zarr(out / "f.zarr") as store:
        for found in (netcdf, store, forecasts.to_xarray()):
            error = found.water_height.isel(trajectory=1) - truth_of(tmp_path, 1)
            assert error.sizes == {"time": FRAMES - 3, "lat": CELLS, "lon": CELLS}
            expected = found.water_height.values[1, : FRAMES - 3] - data.read(1, 3, FRAMES)[:, 0, 0]
            np.testing.assert_allclose(error.sortby("lat").values, expected, atol=1e-5)
            assert found.lat.attrs["units"] == "degrees_north"
            steps = np.diff(found.time.values)
            assert (steps == steps[0]).all() and len(steps) == STEPS - 1


@law("layout", ["PDEBench", "The Well"], quick=["The Well"])
def test_forecasts_of_published_layouts_lie_at_the_places_and_times_of_their_files(tmp_path, model, layout):
    write_swe(tmp_path / "pdebench" / "a.h5", 2)
    with h5py.File(tmp_path / "pdebench" / "a.h5", "a") as file:
        for name in file:
            file[f"{name}/grid/t"][:] += 3  # as of a simulation that was gone on with
        axes = {"time": file["0001/grid/t"][:], "x": file["0001/grid/x"][:], "y": file["0001/grid/y"][:]}
        truth = xarray.DataArray(file["0001/data"][..., 0], axes, tuple(axes))
    if layout == "The Well":
        write_the_well(matey.open_dataset(tmp_path / "pdebench"), Split((0, 1), (), ()), tmp_path / "well")
    data = matey.open_dataset(tmp_path / ("well" if layout == "The Well" else "pdebench"))
    made = matey.forecast(model, data, steps=STEPS + 4).to_xarray().water_height.isel(trajectory=1)
    error = made - truth
    assert error.sizes == {"time": 10, "y": 16, "x": 16}
    np.testing.assert_allclose(error.values, made.values[:10] - data.read(1, 2, 12)[:, 0, 0], atol=1e-6)
    assert made.time.values[-1] == pytest.approx(3 + 0.01 * (STEPS + 5))


def test_trajectories_of_other_dates_share_the_time_since_they_began_and_one_has_its(tmp_path, model):
    data = matey.open_dataset(write(tmp_path, starts=(0.0, 24.0), units=UNITS["dates"]))
    both = matey.forecast(model, data, steps=2).contents.time
    assert both.attrs["units"] == "hours" and both.attrs["comment"] == OTHER_TIMES
    assert both.values[0] == 1200
    one = matey.forecast(model, data, steps=2, trajectories=[1]).to_xarray().time
    assert one.values[0] == np.datetime64("2001-02-04T04:05:06") + np.timedelta64(3600 + 1200, "h")


def test_a_forecast_in_the_folder_of_its_data_is_refused_and_one_beside_it_is_not(tmp_path, model):
    (tmp_path / "data" / "deep").mkdir(parents=True)
    write(tmp_path / "data")
    made = matey.forecast(model, tmp_path / "data", steps=1)
    for out in ("f.h5", "deep/f.zarr"):
        with pytest.raises(FormatError, match=f"{out} would be taken for data, since it lies in .*data; choose"):
            made.write(tmp_path / "data" / out)
    made.write(tmp_path / "f.nc")


def test_the_wells_layout_keeps_times_that_float32_cannot_tell_apart(tmp_path, model):
    data = matey.open_dataset(write(tmp_path, starts=(1.7e9,), files="*.nc"))
    (tmp_path / "out" / "far").mkdir(parents=True)
    matey.forecast(model, data, steps=3).write(tmp_path / "out" / "far" / "f.h5")
    written = matey.open_dataset(tmp_path / "out" / "far" / "f.h5").trajectories[0]
    assert written.time_step == pytest.approx(600) and written.spacing[1] == pytest.approx(0.1, rel=1e-4)


@law(
    "unit",
    ["seconds since start of simulation", "months since 2000-01-01", "days since 2001-02-29"],
    quick=["days since 2001-02-29"],
)
def test_times_whose_beginning_is_no_date_have_the_plain_unit_and_open_again(tmp_path, model, unit):
    made = matey.forecast(model, counted_in(unit), steps=2)
    made.write(tmp_path / "f.nc")
    with xarray.open_dataset(tmp_path / "f.nc", decode_timedelta=False) as found:
        assert found.time.attrs["comment"] == f"In the data: {unit}."
        assert found.time.attrs["units"] == unit.split()[0] and found.time.values.tolist() == [3, 4]
    assert made.to_xarray().time.size == 2


def counted_in(unit):
    values = np.random.default_rng(0).normal(3, 1, (1, 5, CELLS, CELLS))
    along = {"time": Coordinates(np.arange(1.0, 6), unit)}
    return TrajectorySet.from_arrays(
        "waves", {"water_height": values}, spacing=(1, 1), boundary=("wall", "wall"), coordinates=along
    )


@pytest.mark.parametrize("name", ["x", "step", "time", "trajectory_name", "parameter_nu"])
def test_a_field_that_is_called_as_a_coordinate_is_refused_beforehand(name):
    model = make_model(((1, 1, 4, 4),), torch.float32, fields=(name,))
    values = np.random.default_rng(0).normal(3, 1, (1, 5, CELLS, CELLS))
    data = TrajectorySet.from_arrays(
        "waves", {name: values}, spacing=(1, 1), boundary=("wall", "wall"), parameters={"nu": 0.1}
    )
    with pytest.raises(
        DataError, match=f"no field may have the name of a coordinate of forecasts, .* got {name}: rename it in fields"
    ):
        matey.forecast(model, data, steps=2).to_xarray()


def request_of(data, num_steps):
    return ForecastRequest(data, (0,), start=0, num_frames=2, num_steps=num_steps, lead=1)


def test_times_are_those_of_the_data_and_go_on_beyond_it(tmp_path):
    for step in range(4):
        np.save(tmp_path / f"h_2020-01-01_{6 * step:02d}.npy", VALUES[0, step, 0])
    files = {"files": "h_*.npy", "fields": {"height": None}, "time_step": {"date_in_name": "%Y-%m-%d_%H"}}
    request = request_of(open_dataset(describe(tmp_path, COMMON | files)), 6)
    expected = np.datetime64("2020-01-01").astype("datetime64[s]").astype(float) + 6 * 3600 * np.arange(1, 8)
    np.testing.assert_array_equal(request.times(request.last_known + np.arange(7)), expected)


def test_times_of_data_without_any_begin_with_the_trajectory():
    fields = {"u": np.zeros((1, 3, 4, 4), "f4")}
    data = TrajectorySet.from_arrays("puffs", fields, spacing=(1, 1), boundary=("wall", "wall"), time_step=0.5)
    assert request_of(data, 3).times(np.arange(4)).tolist() == [0, 0.5, 1, 1.5]
