"""A file, or an array, for each snapshot: values at their own times, windows that read no others, words for what is amiss."""

import h5py
import numpy as np
import pytest
import xarray

from matey.data import DataError, open_dataset
from tests.support.described_files import describe
from tests.support.snapshot_files import (
    COMMON,
    LAYOUTS,
    NUM_SNAPSHOTS,
    TIMES,
    VALUES,
    write_hdf5,
    write_several_at_once,
)

MANY_FILES = ("netCDF", "Zarr", "a file for each field")  # which are the slowest to write, and alike to others


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=pytest.mark.whole if name in MANY_FILES else ()) for name in LAYOUTS],
)
def folder(request, tmp_path_factory):
    return written(tmp_path_factory.mktemp("snapshots") / "data", LAYOUTS[request.param])


def written(folder, writer, **changes):
    describe(folder.parent, writer(folder) | changes).rename(folder / "matey.yaml")
    return folder


def test_every_snapshot_lies_at_its_own_time_and_step_9_before_step_10(folder):
    data = open_dataset(folder)
    assert (data.system, data.fields, data.num_trajectories) == ("advection", ("height", "tracer"), 2)
    for number, about in enumerate(data.trajectories):
        assert (about.num_frames, about.time_step, about.spacing) == (NUM_SNAPSHOTS, 0.25, (1.0, 0.25, 0.125))
        np.testing.assert_array_equal(data.read(number, 1, 12)[:, :, 0], VALUES[number, 1:])
    cells = (slice(0, 1), slice(1, 3), slice(2, 5))
    np.testing.assert_array_equal(data.read(1, 8, 11, cells)[:, :, 0], VALUES[1, 8:11, :, 1:3, 2:5])


def test_times_are_those_that_the_snapshots_hold(folder):
    data = open_dataset(folder)
    found = data.coordinates("time", [0, 1])
    assert found is None if isinstance(data.description.time_step, float) else np.array_equal(found.values, TIMES)


def test_first_frame_and_stride_count_snapshots_and_not_files(tmp_path):
    data = open_dataset(written(tmp_path / "data", write_several_at_once, first_frame=1, stride=3))
    assert (data.trajectories[0].num_frames, data.trajectories[0].time_step) == (4, 0.75)
    np.testing.assert_array_equal(data.read(1, 0, 4)[:, :, 0], VALUES[1, 1::3])
    np.testing.assert_array_equal(data.coordinates("time", [1]).values, TIMES[1::3])


def test_a_window_reads_its_own_snapshots_and_no_others(tmp_path):
    folder = written(tmp_path / "data", write_hdf5)
    data = open_dataset(folder)
    assert len(data.sources) == 2 * NUM_SNAPSHOTS and data.trajectories[1].name == "run_1"
    for step in (0, 1, 2, 5, 6, 7, 8, 9, 10, 11):
        (folder / "run_1" / f"plt_{10 * step}.h5").unlink()
    np.testing.assert_array_equal(data.read(1, 3, 5)[:, :, 0], VALUES[1, 3:5])
    with pytest.raises(DataError, match=r"plt_50\.h5 does not exist or is no file; it may have been moved"):
        data.read(1, 3, 6)


def test_snapshots_that_are_named_are_opened_without_the_others(tmp_path):
    folder = written(tmp_path / "data", write_hdf5)
    (only,) = open_dataset(folder / "run_1" / "plt_30.h5").trajectories
    assert (only.num_frames, only.source.name, only.parameters) == (1, "plt_30.h5", {"nu": 1.5})
    data = open_dataset(folder / "run_1" / "plt_?0.h5")
    np.testing.assert_array_equal(data.read(0, 0, 9)[:, :, 0], VALUES[1, 1:10])
    assert open_dataset(folder / "run_0").num_trajectories == 1


def test_an_array_of_all_trajectories_for_each_snapshot(tmp_path):
    for step in range(NUM_SNAPSHOTS):
        np.save(tmp_path / f"u{step}.npy", VALUES[:, step, 0])
    fields = {"height": None}
    describe(tmp_path, COMMON | {"axes": ["trajectory", "y", "x"], "fields": fields, "time_step": 0.25})
    data = open_dataset(tmp_path)
    assert [about.name for about in data.trajectories] == ["0", "1"]
    np.testing.assert_array_equal(data.read(1, 0, 12)[:, 0, 0], VALUES[1, :, 0])


def test_what_is_given_in_each_file_is_read_at_its_own_time(tmp_path):
    description = write_hdf5(tmp_path / "data")
    describe(tmp_path / "data", description | {"fields": {"height": "h"}, "given": {"source": "q"}})
    data = open_dataset(tmp_path / "data")
    assert data.given_in_time == {"source"}
    np.testing.assert_array_equal(data.read_given(1, 4, 11)[:, 0, 0], VALUES[1, 4:11, 1])


def gone(folder):
    (folder / "run_0" / "plt_40.h5").unlink()


def of_other_shape(folder):
    with h5py.File(folder / "run_0" / "plt_40.h5", "a") as file:
        for name in "hq":
            del file[name]
            file[name] = np.ones((4, 6))


def without_a_time(folder):
    with h5py.File(folder / "run_0" / "plt_40.h5", "a") as file:
        del file.attrs["time"]


def of_two_kinds_of_names(folder):
    (folder / "run_0" / "plt_40.h5").rename(folder / "run_0" / "plt_a_7.h5")


WRONG = {
    "missing by the times": (gone, {}, r"plt_0.h5 and what follows it: .* got a step of 0.5 at number 4 .* add the snapshot"),
    "missing by the numbers": (gone, {"time_step": 0.25}, "got a step of 20 at number 4 .* add the snapshot if one is missing"),
    "another shape": (of_other_shape, {}, r"plt_40.h5: expected the grid \(z, y, x\) = \(1, 8, 12\) .*_0.h5, got \(1, 4, 6\)"),
    "no time": (without_a_time, {}, r"plt_40.h5: expected an attribute 'time' with the time of the snapshot, found nu;"),
    "odd names": (of_two_kinds_of_names, {"time_step": 0.25}, r"expected names that differ in one number, such as u_0001"),
    "an attribute of times": (lambda folder: None, {"axes": ["time", "y", "x"]}, "an attribute or a name gives the time"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_is_amiss_is_a_sentence_that_names_the_file(tmp_path, case):
    change, changes, words = WRONG[case]
    folder = written(tmp_path / "data", write_hdf5, **changes)
    change(folder)
    with pytest.raises(DataError, match=words) as refused:
        open_dataset(folder)
    assert len(str(refused.value).splitlines()) == 1


def of_months(folder, units, per_day=1, calendar="standard", lengths=(31, 29, 31)):
    """A file for each month, whose times count from its own start, in the units of each."""
    values = np.random.default_rng(0).normal(size=(sum(lengths) * per_day, 3, 4)).astype("f4")
    first = 0
    for month, (unit, length) in enumerate(zip(units, lengths, strict=True), start=1):
        per_unit = 24 if unit.startswith("hour") else 1
        times = np.arange(length * per_day) * per_unit / per_day
        of_month = values[first : first + len(times)]
        coordinate = ("time", times, {"units": f"{unit} since 2024-{month:02d}-01", "calendar": calendar})
        dataset = xarray.Dataset({"h": (("time", "y", "x"), of_month)}, {"time": coordinate})
        dataset.to_netcdf(folder / f"out_2024{month:02d}.nc", engine="netcdf4")
        first += len(times)
    about = {"axes": ["time", "y", "x"], "concat": "time", "time_step": "time", "fields": {"height": "h"}}
    describe(folder, COMMON | about)
    return values


@pytest.mark.parametrize(
    ("units", "per_day", "calendar", "lengths"),
    [
        (("days", "days", "days"), 4, "standard", (31, 29, 31)),
        (("hours", "days", "hours"), 2, "proleptic_gregorian", (31, 29, 31)),
    ],
)
def test_months_that_each_count_from_their_own_start_follow_each_other(tmp_path, units, per_day, calendar, lengths):
    values = of_months(tmp_path, units, per_day, calendar, lengths)
    data = open_dataset(tmp_path)
    (about,), step = data.trajectories, (24 if units[0] == "hours" else 1) / per_day
    assert about.num_frames == len(values) and about.time_step == pytest.approx(step, rel=1e-12)
    found = data.coordinates("time", [0])
    assert (found.unit, found.calendar) == (f"{units[0]} since 2024-01-01", calendar)
    np.testing.assert_allclose(found.values, np.arange(len(values)) * step, rtol=0, atol=1e-9)
    border = lengths[0] * per_day
    np.testing.assert_array_equal(data.read(0, border - 1, border + 1)[:, 0, 0], values[border - 1 : border + 1])
