"""Fields with files of their own, among them masks and coefficients that are the same for many snapshots."""

import h5py
import numpy as np
import pytest
import xarray

from matey.data import DataError, open_dataset
from tests.support.described_files import describe
from tests.support.layout_files import NUM_X, NUM_Y, coded
from tests.support.snapshot_files import COMMON, VALUES, write_fields_apart, write_hdf5, write_netcdf

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
    description = write_netcdf(tmp_path, at_once=5)
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


WRONG = {
    "gone": ({}, r"run_1/q_11.npy does not exist or is no file"),
    "same for all": ({"fields": {"height": None, "tracer": {"file": "run_*/q_0.npy"}}}, "tracer: expected as many wildcards"),
    "too many": ({"fields": {"height": None, "tracer": {"file": "run_*/*_*.npy"}}}, "as .*h_.*npy, does not .*; write a . "),
    "another part": (
        {"files": {"valid": "run_*/h_*.npy"}, "fields": {"height": None, "tracer": {"file": {"train": "run_*/q_*.npy"}}}},
        "the 'file' of 'tracer' names none for the part valid",
    ),
    "axis of time": ({"axes": ["time", "y", "x"], "concat": "time"}, "an attribute or a name gives the time of one snap"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_is_amiss_is_a_sentence(tmp_path, case):
    changes, words = WRONG[case]
    describe(tmp_path, write_fields_apart(tmp_path) | changes)
    if case == "gone":
        (tmp_path / "run_1" / "q_11.npy").unlink()
    with pytest.raises(DataError, match=words) as refused:
        open_dataset(tmp_path)
    assert len(str(refused.value).splitlines()) == 1
