"""Forecasts as an iterator, as an xarray Dataset and as files that others read."""

import os
import signal

import numpy as np
import pytest
import torch
import xarray

import matey
from matey.data import DataError, TrajectorySet
from matey.data.reading import read_history
from matey.evaluate.forecasts.formats import FORMATS, FormatError
from matey.evaluate.rollout import rollout
from matey.train.folder import LockedError
from tests.support.models import PATCHES, make_batch, make_model
from tests.support.small_files import write_waves

STEPS = 11  # the trajectories have 12 frames, two of which are known


@pytest.fixture(scope="module")
def forecasts(model, shallow_water):
    return matey.forecast(model, shallow_water, steps=STEPS, lead=3, batch_size=2, command="a test")


@pytest.fixture(scope="module")
def whole(forecasts):
    """All frames at once, ``(b, t, f, z, y, x)``, by the rollout itself."""
    batch = read_history(forecasts.request.data, forecasts.request.trajectories, 0, 2)
    return torch.stack(list(rollout(forecasts.model, batch, STEPS, lead=3)), dim=1).numpy()


@pytest.fixture(scope="module")
def written(forecasts, tmp_path_factory):
    folder = tmp_path_factory.mktemp("forecasts")
    for suffix in (".nc", ".zarr", ".h5"):
        forecasts.write(folder / f"swe{suffix}")
    return folder


def test_the_iterator_yields_each_batch_of_trajectories_frame_by_frame(forecasts, whole):
    frames = list(forecasts)
    some = [(frame.trajectories, frame.step) for frame in frames[:: STEPS - 1]]
    assert some == [((0, 1), 1), ((0, 1), STEPS), ((2,), STEPS - 1)]
    assert frames[0].time == pytest.approx(2 / 8)  # frames 0 and 1 are known
    for frame in frames:
        expected = whole[frame.first : frame.first + len(frame.trajectories), frame.step - 1]
        assert np.allclose(frame.values.numpy(), expected, rtol=0, atol=1e-5)


def test_xarray_opens_what_netcdf_zarr_and_the_iterator_say_alike(forecasts, whole, written):
    made = forecasts.to_xarray()
    assert np.allclose(made.water_height.values, whole[:, :, 0, 0], rtol=0, atol=1e-5)
    with xarray.open_dataset(written / "swe.nc") as netcdf, xarray.open_zarr(written / "swe.zarr") as store:
        for found in (netcdf, store):
            assert found.sizes == {"trajectory": 3, "time": STEPS, "y": 16, "x": 16}
            xarray.testing.assert_equal(found, made)
            assert found.attrs["Conventions"] == "CF-1.11" and "a test" in found.attrs["history"]
            assert found.trajectory_name.values.tolist() == ["0000", "0001", "0002"]
            assert found.parameter_dam_radius.values.tolist() == [0.5] * 3
            assert found.forecast_period.values[[0, -1]].tolist() == [0.125, STEPS / 8]


def test_the_wells_layout_is_read_back_as_trajectories(written, whole):
    found = matey.open_dataset(written / "swe.h5")
    assert (found.system, found.fields) == ("shallow_water", ("water_height",))
    assert found.trajectories[1].boundary == ("none", "open", "open")
    assert found.trajectories[1].parameters["dam_radius"] == 0.5
    for number in range(3):
        assert np.allclose(found.read(number, 0, STEPS), whole[number], rtol=0, atol=1e-5)


def test_three_axes_and_periodic_walls_keep_their_places(tmp_path):
    model = make_model(((1, 2, 4, 4),), torch.float32)
    data = CubeOfCells()
    for suffix in (".nc", ".h5"):
        forecasts = matey.forecast(model, data, steps=2, history=2)
        forecasts.write(tmp_path / f"cube{suffix}")
    frames = torch.stack([frame.values[0] for frame in forecasts]).numpy()
    with xarray.open_dataset(tmp_path / "cube.nc") as found:
        assert found.activator.dims == ("trajectory", "time", "z", "y", "x")
        assert found.activator.attrs["units"] == "kg/m^3" and found.y.attrs["units"] == "m"
        assert np.allclose(found.inhibitor.values[0], frames[:, 1], atol=1e-5)
        assert str(found.time.values[0]) == "2000-01-01T00:00:04.000000000"  # 2 s between frames
    found = matey.open_dataset(tmp_path / "cube.h5")
    assert found.trajectories[0].grid == (4, 8, 12) and found.trajectories[0].boundary == data.trajectories[0].boundary
    assert np.allclose(found.read(0, 0, 2), frames, atol=1e-5)


class CubeOfCells(matey.data.TrajectorySet):
    system, fields, units = "cube", ("activator", "inhibitor"), ("kg/m^3", "?")
    length_unit, time_unit = "m", "s"

    def __init__(self):
        cells = {"grid": (4, 8, 12), "spacing": (1.0, 2.0, 3.0), "boundary": ("wall", "periodic", "open")}
        path = write_waves  # no file: its frames are made here
        self.trajectories = (matey.data.Trajectory(path, "one", 3, **cells, time_step=2.0),)

    @property
    def sources(self):
        return ()

    def _read_frames(self, trajectory, start, stop, cells):
        return np.random.default_rng(0).normal(size=(3, 2, 4, 8, 12))[start:stop, :, *cells]


@pytest.mark.parametrize(("suffix", "frames_before"), [(".nc", 1), (".zarr", 9), (".h5", 18)])
def test_a_forecast_that_was_killed_goes_on_to_the_same_values(
    suffix, frames_before, model, shallow_water, forecasts, written, tmp_path, monkeypatch
):
    monkeypatch.setattr("matey.evaluate.forecasts.series.STRETCH_BYTES", 2 * 4 * 16 * 16)  # three frames at a time
    path = tmp_path / f"swe{suffix}"
    made = []

    def kill_soon(num_frames):
        made.append(num_frames)
        if sum(made) >= frames_before:
            os.kill(os.getpid(), signal.SIGKILL)

    child = os.fork()
    if child == 0:
        forecasts.write(path, on_frames=kill_soon)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert not path.exists()
    counted = []
    forecasts.write(path, on_frames=counted.append)
    assert counted[0] >= frames_before and sum(counted) == 3 * STEPS
    assert sorted(item.name for item in tmp_path.iterdir()) == [path.name]
    for place in range(3):
        expected, came = (frames_in(file, forecasts, place) for file in (written / path.name, path))
        assert np.array_equal(came, expected)


def frames_in(path, forecasts, place):
    file = FORMATS[path.suffix].open_file(path, forecasts.contents, "r")
    frames = file.read(place, place + 1, 0, STEPS)
    file.close()
    return frames


def test_a_second_process_that_makes_the_same_file_is_refused(forecasts, tmp_path):
    path, refused = tmp_path / "swe.zarr", []

    def again(num_frames):
        if not refused and os.fork() == 0:
            try:
                forecasts.write(path, overwrite=True)
            except LockedError as error:
                os._exit("swe.zarr is in use: process" not in str(error))
            os._exit(1)
        refused.append(refused or os.waitstatus_to_exitcode(os.wait()[1]))

    forecasts.write(path, on_frames=again)
    assert refused[0] == 0 and sorted(item.name for item in tmp_path.iterdir()) == [path.name]
    with pytest.raises(FormatError, match="exists already"):
        forecasts.write(path)


def test_a_forecast_whose_lock_another_process_has_taken_over_writes_no_more(forecasts, tmp_path, monkeypatch):
    monkeypatch.setattr("matey.evaluate.forecasts.series.STRETCH_BYTES", 2 * 4 * 16 * 16)  # three frames at a time
    path, lock = tmp_path / "swe.zarr", tmp_path / ".swe.zarr.lock"
    made = []

    def lose(num_frames):
        made.append(num_frames)
        if len(made) == 3:  # the second stretch is written
            lock.write_text('{"node": "elsewhere"}')

    with pytest.raises(LockedError, match=r"swe.zarr is no longer this run's: .* names another process, .*elsewhere"):
        forecasts.write(path, on_frames=lose)
    assert len(made) == 3 and lock.exists() and not path.exists()
    frames = (
        FORMATS[path.suffix].open_file(tmp_path / ".swe.unfinished.zarr", forecasts.contents, "r").read(0, 2, 0, STEPS)
    )
    assert np.isfinite(frames[:, :6]).all() and np.isnan(frames[:, 6:]).all()


def test_an_unfinished_file_of_another_forecast_is_not_gone_on_with(model, shallow_water, tmp_path):
    class Enough(Exception):
        pass

    def stop(num_frames):
        if num_frames:
            raise Enough

    path = tmp_path / "swe.nc"
    with pytest.raises(Enough):
        matey.forecast(model, shallow_water, steps=4, lead=2).write(path, on_frames=stop)
    counted = []
    matey.forecast(model, shallow_water, steps=4, lead=1).write(path, on_frames=counted.append)
    assert counted[0] == 0 and sum(counted) == 12 and path.exists()


def test_a_forecast_that_conserves_goes_on_with_its_totals_and_limits(tmp_path):
    class Enough(Exception):
        pass

    def stop(num_frames):
        if num_frames:
            raise Enough

    gas = ("velocity_x", "velocity_y", "density", "pressure")
    history = make_batch(fields=gas, frames=1, grid=(1, 16, 16)).history
    fields = {name: history[:, :, at].numpy() for at, name in enumerate(gas)}
    told = {"spacing": (1.0,) * 3, "boundary": ("open", "periodic", "periodic")}
    data = TrajectorySet.from_arrays("compressible_rand", fields, **told)
    model = make_model(PATCHES, torch.float32, num_blocks=1, fields=gas, history=1)
    made, freely = (matey.forecast(model, data, steps=7, lead=2, history=1, conserve=keep) for keep in (True, False))
    assert made.facts["forecast"].endswith("with the totals kept of mass, momentum, energy")
    assert "totals" not in freely.facts["forecast"]
    before = history[:, 0, 2].mean(dim=(1, 2, 3)).numpy()[:, None]
    drift, free = (each.to_xarray().density.mean(dim=["y", "x"]).values - before for each in (made, freely))
    assert abs(drift).max() < 1e-6 < abs(free).max()
    made.write(tmp_path / "whole.h5")
    with pytest.raises(Enough), pytest.MonkeyPatch.context() as patched:
        patched.setattr("matey.evaluate.forecasts.series.STRETCH_BYTES", 1)
        made.write(tmp_path / "broken.h5", on_frames=stop)
    made.write(tmp_path / "broken.h5")
    assert np.array_equal(*(frames_in(tmp_path / f"{name}.h5", made, 0) for name in ("whole", "broken")))


def test_a_name_that_is_refused_leaves_no_folder_behind(forecasts, tmp_path):
    for name, sentence in ((tmp_path / "some" / "new" / "swe.txt", "ends in .txt"), (".", "ends in no suffix")):
        with pytest.raises(FormatError, match=sentence):
            forecasts.write(name)
    assert not any(tmp_path.iterdir())


def test_a_forecast_whose_known_frames_are_refused_leaves_no_file_behind(model, tmp_path):
    values = np.full((1, 4, 16, 16), np.inf, dtype="f4")
    data = TrajectorySet.from_arrays("waves", {"water_height": values}, spacing=(1, 1), boundary=("wall", "wall"))
    with pytest.raises(DataError, match="expected finite values"):
        matey.forecast(model, data, steps=2).write(tmp_path / "out.nc")
    assert not [*tmp_path.iterdir()]


def test_what_cannot_be_forecast_or_written_is_a_sentence(model, shallow_water, written):
    with pytest.raises(FormatError, match="swe.nc exists already"):
        matey.forecast(model, shallow_water, steps=1).write(written / "swe.nc")
    with pytest.raises(FormatError, match="ends in .txt; expected .nc"):
        matey.forecast(model, shallow_water, steps=1).write(written / "swe.txt")
    for arguments, sentence in (
        ({"trajectories": (3,)}, "3 trajectories here, numbered from 0; got 3"),
        ({"start": 11}, "can begin at 0 to 10; got start 11"),
        ({"history": 13}, "expected at least 13 frames"),
        ({"lead": 0}, "lead: expected a whole number of 1 or more, got 0"),
        ({"trajectories": -1}, "3 trajectories here, numbered from 0; got -1"),
        ({"history": -2}, "history: expected a whole number of 1 or more, got -2"),
    ):
        with pytest.raises(matey.data.DataError, match=sentence):
            matey.forecast(model, shallow_water, **{"steps": 2, **arguments})


def test_data_that_a_forecast_is_made_from_is_never_written_over(model, tmp_path):
    source = write_waves(tmp_path, "shallow_water")
    before, link = source.read_bytes(), tmp_path / "link.h5"
    link.symlink_to(source)
    made = matey.forecast(model, matey.data.open_dataset(source), steps=2)
    for out in (source, link):
        with pytest.raises(FormatError, match="is data that these forecasts are made from"):
            made.write(out, overwrite=True)
    assert source.read_bytes() == before


def test_trajectories_on_other_grids_are_forecast_apart(model, tmp_path):
    write_waves(tmp_path / "a", "shallow_water", 1)
    write_waves(tmp_path / "b", "shallow_water", 1, size=32)
    with pytest.raises(matey.data.DataError, match="need the same grid, but number 1 has"):
        matey.forecast(model, tmp_path, steps=1)
    (frame,) = matey.forecast(model, tmp_path, steps=1, trajectories=[1])
    assert frame.values.shape == (1, 1, 1, 32, 32) and PATCHES[0][-1] == 8
