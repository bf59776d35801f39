"""A file, or an array, for each snapshot or field: values at their own times, windows that read no others."""

import h5py
import numpy as np
import pytest
import xarray

from matey.data import DataError, open_dataset
from tests.support.described_files import describe
from tests.support.layout_files import NUM_X, NUM_Y, coded
from tests.support.snapshot_files import (
    COMMON,
    LAYOUTS,
    NUM_SNAPSHOTS,
    TIMES,
    VALUES,
    write_fields_apart,
    write_hdf5,
    write_netcdf,
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


DEPTH = np.arange(NUM_Y * NUM_X, dtype=np.float32).reshape(NUM_Y, NUM_X)
OF_RUN = {"array": "depth", "file": "run_*/depth.h5"}


def write_depths(folder):
    for run in range(len(VALUES)):
        with h5py.File(folder / f"run_{run}" / "depth.h5", "w") as file:
            file["depth"] = DEPTH * (1 + run)


@pytest.mark.parametrize("writer", [write_hdf5, write_fields_apart])
def test_a_mask_of_each_trajectory_is_constant_beside_snapshots(tmp_path, writer):
    description = writer(tmp_path)
    write_depths(tmp_path)
    data = open_dataset(describe(tmp_path, description | {"given": {"depth": OF_RUN}}))
    assert data.given == ("depth",) and not data.given_in_time
    for run in range(2):
        np.testing.assert_array_equal(data.read_given(run, 4, 11)[0, 0, 0], DEPTH * (1 + run))
        np.testing.assert_array_equal(data.read(run, 8, 11)[:, :, 0], VALUES[run, 8:11])


def test_a_forcing_in_files_of_its_own_is_read_at_its_own_time(tmp_path):
    description = write_fields_apart(tmp_path)
    forcing = {"forcing": description["fields"].pop("tracer")}
    data = open_dataset(describe(tmp_path, description | {"given": forcing}))
    assert data.given_in_time == {"forcing"}
    np.testing.assert_array_equal(data.read_given(1, 9, 11)[:, 0, 0], VALUES[1, 9:11, 1])


def test_a_mask_goes_with_files_that_follow_each_other_in_time(tmp_path):
    description = write_netcdf(tmp_path, 5)
    xarray.Dataset({"depth": (("y", "x"), DEPTH)}).to_netcdf(tmp_path / "grid.nc", engine="netcdf4")
    given = {"depth": {"array": "depth", "axes": ["y", "x"], "file": "grid.nc"}}
    data = open_dataset(describe(tmp_path, description | {"given": given}))
    np.testing.assert_array_equal(data.read_given(0, 3, 9), DEPTH[None, None, None])


@pytest.mark.parametrize("parts", [False, True])
def test_whole_trajectories_may_have_a_file_for_each_field(tmp_path, parts):
    values = coded(2)
    for run, part in enumerate(("train", "valid")):
        (tmp_path / part).mkdir()
        for name, of_field in zip("hq", np.moveaxis(values[run], 1, 0), strict=True):
            np.save(tmp_path / part / f"{name}.npy", of_field)
    files = {part: f"{part}/h.npy" for part in ("train", "valid")} if parts else "*/h.npy"
    own = {part: f"{part}/q.npy" for part in ("train", "valid")} if parts else "*/q.npy"
    fields = {"height": None, "tracer": {"file": own}}
    about = {"files": files, "axes": ["time", "y", "x"], "fields": fields, "time_step": 0.5}
    data = open_dataset(describe(tmp_path, COMMON | about))
    assert [each.split for each in data.trajectories] == (["train", "valid"] if parts else [None, None])
    np.testing.assert_array_equal(
        data.read(1, 1, 4, (slice(0, 1), slice(2, 5), slice(1, 4)))[:, :, 0], values[1, 1:4, :, 2:5, 1:4]
    )
    assert len(data.sources) == 4


def test_a_folder_or_glob_takes_the_files_of_all_fields_along(tmp_path):
    describe(tmp_path, write_fields_apart(tmp_path))
    for path in (tmp_path, tmp_path / "run_*" / "*.npy"):
        np.testing.assert_array_equal(open_dataset(path).read(1, 0, 12)[:, :, 0], VALUES[1])
    (only,) = open_dataset(tmp_path / "run_1" / "q_3.npy").trajectories
    assert (only.num_frames, only.source.name) == (1, "h_3.npy")


def test_steps_in_names_give_each_trajectory_its_own_time_step(tmp_path):
    for run, every in enumerate((10, 20)):
        for step in range(4):
            np.save(tmp_path / f"r{run}_{100 + every * step:06d}.npy", VALUES[run, step, 0])
    about = {"files": "r*_*.npy", "fields": {"height": None}, "time_step": {"number_in_name": 1e-3}}
    data = open_dataset(describe(tmp_path, COMMON | about))
    assert [each.time_step for each in data.trajectories] == pytest.approx([0.01, 0.02])
    np.testing.assert_allclose(data.coordinates("time", [1]).values, [0.1, 0.12, 0.14, 0.16])
    (tmp_path / "r0_000110.npy").unlink()
    with pytest.raises(DataError, match=r"r0_000100.npy .* got a step of 0.02 .* add the snapshot if one is missing"):
        open_dataset(tmp_path)


def test_dates_in_names_are_times_in_seconds_across_the_end_of_a_month(tmp_path):
    names = ("2020-02-28_12", "2020-02-29_00", "2020-02-29_12", "2020-03-01_00")
    for step, name in enumerate(names):
        np.save(tmp_path / f"d01_{name}.npy", VALUES[0, step, 0])
    dates = {"files": "d01_*.npy", "fields": {"height": None}, "time_step": {"date_in_name": "%Y-%m-%d_%H"}}
    data = open_dataset(describe(tmp_path, COMMON | dates))
    (about,) = data.trajectories
    assert (about.num_frames, about.time_step, data.coordinates("time", [0]).unit) == (
        4,
        43200,
        "seconds since 1970-01-01",
    )
    np.testing.assert_array_equal(data.read(0, 0, 4)[:, 0, 0], VALUES[0, :4, 0])
    (tmp_path / "d01_2020-02-29_00.npy").unlink()
    with pytest.raises(DataError, match="got a step of 86400 at number 1 .* add the snapshot if one is missing"):
        open_dataset(tmp_path)
    (tmp_path / "d01_2020-02-30_00.npy").write_bytes((tmp_path / f"d01_{names[0]}.npy").read_bytes())
    with pytest.raises(DataError, match="d01_2020-02-30_00.npy: expected a date of the form %Y-%m-%d_%H in its name"):
        open_dataset(tmp_path)


OWN_FILES_WRONG = {
    "gone": ({}, r"run_1/q_11.npy does not exist or is no file"),
    "same for all": ({"fields": {"height": None, "tracer": {"file": "run_*/q_0.npy"}}}, "tracer: expected as many wildcards"),
    "too many": ({"fields": {"height": None, "tracer": {"file": "run_*/*_*.npy"}}}, "as .*h_.*npy, does not .*; write a . "),
    "another part": (
        {"files": {"valid": "run_*/h_*.npy"}, "fields": {"height": None, "tracer": {"file": {"train": "run_*/q_*.npy"}}}},
        "the 'file' of 'tracer' names none for the part valid",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", OWN_FILES_WRONG)
def test_what_is_amiss_is_a_sentence(tmp_path, case):
    changes, words = OWN_FILES_WRONG[case]
    describe(tmp_path, write_fields_apart(tmp_path) | changes)
    if case == "gone":
        (tmp_path / "run_1" / "q_11.npy").unlink()
    with pytest.raises(DataError, match=words) as refused:
        open_dataset(tmp_path)
    assert len(str(refused.value).splitlines()) == 1
