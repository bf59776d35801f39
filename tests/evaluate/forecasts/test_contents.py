"""Forecasts of described files lie at the coordinates of those files, so that xarray compares the two."""

import numpy as np
import pytest
import xarray

import matey
from tests.support.described_files import describe
from tests.support.models import PATCHES, make_model

FRAMES, CELLS, STEPS = 8, 16, 10  # two frames are known, so that the forecast goes four beyond the data
TIMES = 3600.0 + 600.0 * np.arange(FRAMES)
UNITS = {"dates": "hours since 2001-02-03 04:05:06", "a plain unit": "s", "no unit": None}


@pytest.fixture(scope="module")
def model():
    return make_model(PATCHES)


def write(folder, starts=(0.0, 0.0), units="s"):
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
    return describe(
        folder,
        {"system": "waves", "axes": ["time", "y", "x"], "fields": {"water_height": "h"}, "time_step": "time",
         "spacing": {"y": "lat", "x": "lon"}, "boundary": {"y": "wall", "x": "wall"}},
    )  # fmt: skip


def truth_of(folder, number):
    return xarray.load_dataset(folder / f"{number}.nc").rename(lat="y", lon="x").h


@pytest.mark.parametrize("units", UNITS.values(), ids=list(UNITS))
def test_a_forecast_less_the_truth_is_the_error_where_there_is_truth(tmp_path, model, units):
    data = matey.open_dataset(write(tmp_path, units=units))
    forecasts = matey.forecast(model, data, steps=STEPS, start=1)
    forecasts.write(tmp_path / "f.zarr")
    forecasts.write(tmp_path / "f.nc")
    with xarray.open_dataset(tmp_path / "f.nc") as netcdf, xarray.open_zarr(tmp_path / "f.zarr") as store:
        for found in (netcdf, store, forecasts.to_xarray()):
            error = found.water_height.isel(trajectory=1) - truth_of(tmp_path, 1)
            assert error.sizes == {"time": FRAMES - 3, "y": CELLS, "x": CELLS}
            expected = found.water_height.values[1, : FRAMES - 3] - data.read(1, 3, FRAMES)[:, 0, 0]
            np.testing.assert_allclose(error.sortby("y").values, expected, atol=1e-5)
            assert found.y.attrs["units"] == "degrees_north"
            steps = np.diff(found.time.values)
            assert (steps == steps[0]).all() and len(steps) == STEPS - 1


def test_the_wells_layout_keeps_times_that_float32_cannot_tell_apart(tmp_path, model):
    data = matey.open_dataset(write(tmp_path, starts=(1.7e9,)))
    (tmp_path / "out" / "far").mkdir(parents=True)
    matey.forecast(model, data, steps=STEPS).write(tmp_path / "out" / "far" / "f.h5")
    written = matey.open_dataset(tmp_path / "out" / "far" / "f.h5").trajectories[0]
    assert written.time_step == pytest.approx(600) and written.spacing[1] == pytest.approx(0.1, rel=1e-4)


def test_trajectories_of_unlike_times_count_from_their_beginnings(tmp_path, model):
    data = matey.open_dataset(write(tmp_path, starts=(0.0, 60.0)))
    both, one = (matey.forecast(model, data, steps=1, trajectories=chosen).contents for chosen in ([0, 1], [1]))
    assert both.coordinates["time"].values == [1200.0] and one.coordinates["time"].values == [3660.0 + 1200.0]
    assert both.coordinates["y"].values[0] == pytest.approx(39.0)


def test_times_of_each_trajectory_and_left_out_frames_are_taken_as_described(tmp_path, model):
    values = np.random.default_rng(0).normal(3, 1, (2, FRAMES, CELLS, CELLS)).astype("f4")
    axes, times = ("run", "time", "y", "x"), np.stack([TIMES, TIMES + 60])
    xarray.Dataset({"h": (axes, values), "t": (axes[:2], times)}).to_netcdf(tmp_path / "all.nc")
    tree = {"system": "waves", "axes": ["trajectory", *axes[1:]], "fields": {"water_height": "h"}, "time_step": "t",
            "spacing": {"y": 0.5, "x": 0.5}, "boundary": {"y": "wall", "x": "wall"}, "first_frame": 1, "stride": 2}  # fmt: skip
    contents = matey.forecast(model, describe(tmp_path, tree), steps=3, trajectories=[1]).contents
    assert contents.coordinates["time"].values.tolist() == [3660.0 + 600 * frame for frame in (5, 7, 9)]
    assert contents.coordinates["y"].values[0] == 0.25  # counted from the lower end, where the file has no coordinates
