"""Files of any layout by their description: values at their place whatever the kind, and words for what does not fit."""

import json
import os
import pickle
import shutil

import cftime
import numpy as np
import pytest
import xarray
import yaml

from matey.commands.inspect_data import check
from matey.config import load_config
from matey.config.loading import dump_config
from matey.data import DataError, open_dataset, split_set
from matey.data.coordinates import counted_from
from matey.data.stored import StoredArray
from matey.train.run_data import open_data
from tests.support.described_files import BY_NAME, KINDS, dataset, describe, flow, write
from tests.support.laws import law
from tests.support.layout_files import NUM_FRAMES, NUM_X, NUM_Y, coded

ALIKE = ("Zarr 2",)  # to Zarr 3


@pytest.fixture(params=[pytest.param(kind, marks=pytest.mark.whole if kind in ALIKE else ()) for kind in KINDS])
def described(request, tmp_path):
    return write(tmp_path / "data", request.param)


def read_all(trajectories):
    return [trajectories.read(i, 0, about.num_frames) for i, about in enumerate(trajectories.trajectories)]


def test_every_value_lies_at_its_own_time_field_and_place(described):
    folder = described.parent
    (file,) = (path for path in folder.iterdir() if path != described)
    for path in (described, folder, file, folder / "*.[!y]*"):
        data = open_dataset(path)
        assert (data.system, data.fields, data.units) == ("advection", ("height", "tracer"), ("m", "?"))
        frames = data.read(1, 2, 5)
        assert frames.dtype == np.float32 and frames.flags.c_contiguous
        np.testing.assert_array_equal(frames[:, :, 0], coded(2)[1, 2:5])


def test_a_box_of_cells_is_read_as_it_lies_in_the_whole(described):
    data = open_dataset(described)
    z, y, x = (slice(0, 1), slice(1, 3), slice(2, data.trajectories[0].grid[2]))
    np.testing.assert_array_equal(data.read(1, 2, 5, (z, y, x)), data.read(1, 2, 5)[:, :, z, y, x])


def test_the_description_holds_grid_times_and_parameters(described):
    first, second = open_dataset(described).trajectories
    assert first.grid == second.grid == (1, NUM_Y, NUM_X) and first.num_frames == NUM_FRAMES
    assert first.spacing == (1.0, 0.25, 0.125) and first.time_step == 0.5
    assert first.boundary == ("none", "wall", "periodic") and first.split is None
    nu = [about.parameters.get("nu", each) for about, each in ((first, 0.5), (second, 0.25))]
    assert nu == [0.5, 0.25] and first.parameters["Re"] == 100


def test_a_stride_takes_every_so_many_frames_after_the_first(tmp_path):
    data = open_dataset(write(tmp_path, first_frame=1, stride=2))
    assert (data.trajectories[0].num_frames, data.trajectories[0].time_step) == (3, 1.0)
    np.testing.assert_array_equal(data.read(0, 1, 3)[:, :, 0], coded(2)[0, [3, 5]])


def test_frames_are_read_without_those_beside_them(tmp_path):
    data = open_dataset(write(tmp_path, "Zarr 3"))
    for chunk in (tmp_path / "a.zarr" / "h" / "c" / "1" / "2").rglob("*"):
        if chunk.is_file():
            chunk.write_bytes(b"damaged")
    np.testing.assert_array_equal(data.read(1, 0, 4)[:, :, 0], coded(2)[1, :4])
    with pytest.raises(DataError, match=r"a\.zarr cannot be read as Zarr .*corrupt"):
        data.read(1, 3, 5)


@law("kept", [0.9, 0.4, 0.02], quick=[0.4])
def test_a_truncated_file_is_named(described, kept):
    file = next(path for path in described.parent.iterdir() if path != described)
    files = [path for path in file.rglob("*") if path.is_file()] if file.is_dir() else [file]
    for path in files:
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * kept)])
    with pytest.raises(DataError, match=rf"{file.name}.*(cannot be|corrupt)"):
        read_all(open_dataset(described))


def test_coordinates_that_decrease_turn_the_data_round(tmp_path):
    path = write(tmp_path)
    dataset().isel(lat=slice(None, None, -1)).to_netcdf(tmp_path / "a.nc")
    data = open_dataset(path)
    np.testing.assert_array_equal(data.read(1, 2, 5)[:, :, 0], coded(2)[1, 2:5])
    assert data.trajectories[0].spacing == (1.0, 0.25, 0.125)
    np.testing.assert_array_equal(
        data.read(1, 2, 5, (slice(0, 1), slice(0, 2), slice(1, 3))), data.read(1, 2, 5)[:, :, :, :2, 1:3]
    )


def write_with(folder, values, kind, **options):
    """Write the file of a kind again with other values."""
    if "Zarr" in kind:
        shutil.rmtree(folder / "a.zarr")
        values.to_zarr(folder / "a.zarr", zarr_format=int(kind[-1]), consolidated=False, **options)
    else:
        values.to_netcdf(folder / "a.nc", format="NETCDF4" if kind == "netCDF-4" else "NETCDF3_64BIT", **options)


@law("kind", ["netCDF-4", "netCDF-3", "Zarr 2", "Zarr 3"], quick=["netCDF-3", "Zarr 3"])
def test_cells_marked_as_missing_hold_no_data_if_they_are_the_same_in_all_frames(tmp_path, kind):
    path, values = write(tmp_path, kind), dataset()
    values["h"][:, :, 1, 2:4] = np.nan
    values["h"][0, 3, 2, 1] = np.nan
    values["q"][1] = np.nan
    write_with(tmp_path, values, kind, encoding={"h": {"_FillValue": -999.0}})
    data = open_dataset(path)
    gaps = np.zeros((3, 2, 1, NUM_Y, NUM_X), bool)
    gaps[:, 0, :, 1, 2:4] = True
    np.testing.assert_array_equal(np.isnan(data.read(0, 0, 3)), gaps)
    inside = (slice(0, 1), slice(1, 2), slice(2, 3))
    assert np.isnan(data.read(0, 3, 4, inside)[0, 0]).all()
    with pytest.raises(
        DataError, match=r"field .height. is nan in frame 3 at \(z, y, x\) = \(0, 2, 1\): .* in all frames"
    ):
        data.read(0, 3, 4)
    with pytest.raises(DataError, match="field .tracer. has no value in any cell"):  # it needs some
        data.read(1, 0, 2)


def test_a_mask_hides_what_lies_under_it_and_is_told_by_the_value_of_a_given_field(tmp_path):
    path, values = write(tmp_path, "netCDF-4"), dataset()
    land = np.zeros((NUM_Y, NUM_X), np.int8)
    land[2:, 3] = 1
    for name in ("h", "q"):
        values[name] = values[name].where(land == 0, 1e6)
    values["land"] = (("lat", "lon"), land)
    write_with(tmp_path, values, "netCDF-4")
    tree = yaml.safe_load(path.read_text()) | {"given": {"land": {"array": "land", "axes": ["y", "x"]}}}
    path.write_text(yaml.safe_dump(tree | {"mask": {"land": 1}}))
    data = open_dataset(path)
    np.testing.assert_array_equal(np.isnan(data.read(1, 0, 4)), np.broadcast_to(land == 1, (4, 2, 1, *land.shape)))
    np.testing.assert_array_equal(data.read_given(0, 0, 4)[0, 0, 0], land)
    assert np.isnan(data.with_given(()).read(0, 0, 1, (slice(0, 1), slice(2, 3), slice(3, 4)))).all()
    path.write_text(yaml.safe_dump(tree | {"mask": {"land": 2}}))
    assert "no cell has such a value" in check(open_dataset(path))[1][0]
    path.write_text(yaml.safe_dump(tree | {"mask": {"sea": 1}}))
    with pytest.raises(DataError, match="mask: expected names of given fields, got 'sea'; there are land"):
        open_dataset(path)


def test_values_are_scaled_as_the_description_says_and_so_is_their_unit(tmp_path):
    values = np.random.default_rng(0).normal(size=(4, 6, 8))
    axes = ("time", "y", "x")
    fields = {
        "n": (axes, 1e25 * values, {"units": "m-3"}),
        "m": (axes, 1e-27 * values),
        "s": (axes[1:], 1e20 * values[0]),
    }
    xarray.Dataset(fields).to_netcdf(tmp_path / "plasma.nc")
    scaled = {"n": {"array": "n", "scale": "1e-25"}, "m": {"array": "m", "scale": 1e27, "unit": "u"}}
    given = {"s": {"array": "s", "axes": ["y", "x"], "scale": 1e-20}}
    description = flow(fields=scaled, given=given)
    data = open_dataset(tmp_path / "plasma.nc", description)
    assert data.units == ("1e+25 m-3", "u")
    np.testing.assert_allclose(data.read(0, 1, 3)[:, :, 0], np.stack([values[1:3]] * 2, axis=1), rtol=1e-6)
    np.testing.assert_allclose(data.read_given(0, 0, 1)[0, 0, 0], values[0], rtol=1e-6)
    with pytest.raises(DataError, match=r"finite values, but field 'n' is .*e\+2\d .* such as scale: 1e-20 beside"):
        open_dataset(tmp_path / "plasma.nc", description | {"fields": {"n": "n"}}).read(0, 0, 1)


def test_files_of_parts_are_split_as_the_description_says(tmp_path):
    parts = ("train", "valid", "test")
    one = {**BY_NAME, "axes": ["time", "y", "x"], "parameters": {"nu": 0.5}}
    for number, part in enumerate(("train", *parts)):
        (tmp_path / part).mkdir(exist_ok=True)
        dataset().isel(sample=number % 2).to_netcdf(tmp_path / part / f"run_{number}.nc")
    path = describe(tmp_path, {"system": "advection", "files": {part: f"{part}/*.nc" for part in parts}, **one})
    data = open_dataset(tmp_path)
    assert [about.name for about in data.trajectories] == ["run_0", "run_1", "run_2", "run_3"]
    split = split_set(data, (0.8, 0.1, 0.1), seed=0)
    assert (split.train, split.valid, split.test) == ((0, 1), (2,), (3,))
    single = open_dataset(tmp_path / "test" / "run_3.nc")
    assert single.num_trajectories == 1 and single.trajectories[0].split == "test" and path.is_file()


def test_a_run_trains_on_what_its_own_yaml_describes(tmp_path, run_yaml):
    description = yaml.safe_load(write(tmp_path / "data", "NumPy").read_text())
    (tmp_path / "data" / "matey.yaml").unlink()
    sets = [{"path": str(tmp_path / "data" / "a.npy"), "description": description}]
    run = load_config(run_yaml(data={"sets": sets, "split": [0.5, 0.5, 0]}))
    data = open_data(run)
    assert data.fields == ("height", "tracer") and data.sets[0].system == "advection"
    (tmp_path / "again.yaml").write_text(dump_config(run))
    assert load_config(tmp_path / "again.yaml") == run


WRONG = {
    "an array that is not there": ({"fields": {"height": "hh"}}, r"expected an array 'hh' for the field 'height', found"),
    "axes left out": ({"axes": ["time", "y", "x"]}, r"h: expected the axes \(time, y, x\) .* got the shape \(2, 6, 8, 12\)"),
    "axes in another order": ({"axes": ["trajectory", "time", "x", "y"]}, r"h: .* write axes: \[trajectory, time, y, x\]"),
    "no axis of time": ({"axes": ["trajectory", "y", "x"]}, "which without time are those of a single snapshot"),
    "spacing of zero": ({"spacing": {"y": 0, "x": 0.1}}, r"spacing.y: Input should be greater than 0 .got 0"),
    "an unknown key": ({"strid": 2}, "unknown key 'strid'. Did you mean 'stride'"),
    "what is to be filled in": ({"boundary": {"y": "TODO", "x": "TODO"}}, "boundary.y, boundary.x still say TODO"),
    "a file of two parts": ({"files": {"train": "*", "test": "a.nc"}}, "a.nc are the same file in train and in test"),
    "a parameter for others": ({"parameters": {"a": {"array": "lat"}}}, "one for each of 2 trajectories, .* got .0.0, 0.25"),
    "fields of unlike axes": (
        {"fields": {"height": "h", "tracer": {"array": "q", "axes": ["time", "y", "x"]}}},
        "all need the same axes, .* what is constant in time belongs into 'given'",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_fit_is_a_sentence(tmp_path, case):
    changes, words = WRONG[case]
    path = write(tmp_path, **changes)
    with pytest.raises(DataError, match=words) as refused:
        open_dataset(path)
    assert str(tmp_path) in str(refused.value) and len(str(refused.value).splitlines()) == 1


def test_a_description_that_is_no_plain_mapping_is_a_sentence(tmp_path):
    (tmp_path / "matey.yaml").write_text("system: a\nsystem: b")
    with pytest.raises(DataError, match=r"matey.yaml.*has the key 'system' twice \(line 2\)"):
        open_dataset(tmp_path / "matey.yaml")


@pytest.mark.parametrize(
    ("name", "values", "words"),
    [
        ("lon", np.geomspace(1, 2, NUM_X), "lon: expected evenly spaced coordinates, got a step of .* uneven"),
        # a minute that is missing, of times in seconds since 1970
        (
            "time",
            1.6e9 + 60 * np.array([0, 1, 2, 4, 5, 6]),
            "time: expected evenly spaced coordinates, got a step of 120",
        ),
    ],
)
def test_uneven_coordinates_are_refused(tmp_path, name, values, words):
    path = write(tmp_path)
    dataset().assign_coords({name: np.asarray(values, float)}).to_netcdf(tmp_path / "a.nc")
    with pytest.raises(DataError, match=words):
        open_dataset(path)


def test_a_file_under_two_names_is_refused(tmp_path):
    path = write(tmp_path)
    (tmp_path / "latest.nc").symlink_to(tmp_path / "a.nc")
    with pytest.raises(DataError, match=r"latest.nc and .*a.nc are the same file; name it once"):
        open_dataset(path)


def save_objects(path):
    np.save(path, np.array([None, 1]), allow_pickle=True)


@pytest.mark.parametrize(
    ("save", "words"),
    [
        (save_objects, r"a.npy cannot be read as a NumPy array of numbers .* save numbers"),
        (
            lambda path: np.savez(path.open("wb"), a=np.zeros(3)),
            r"a.npy is none of .*: it begins with b.PK.*docs/own_data.md says",
        ),
        (lambda path: path.unlink(), "matey.yaml: no data file matches '.'; put it there, or correct 'files'"),
    ],
)
def test_a_file_that_holds_no_array_says_what_it_is(tmp_path, save, words):
    path = write(tmp_path, "NumPy")
    save(tmp_path / "a.npy")
    with pytest.raises(DataError, match=words):
        open_dataset(path)


def test_an_array_of_a_store_without_any_chunk_was_never_filled(tmp_path):
    path = write(tmp_path, "Zarr 2")
    for chunk in (tmp_path / "a.zarr" / "h").glob("[0-9]*"):
        chunk.unlink()
    with pytest.raises(DataError, match="h: was never written to"):
        open_dataset(path)


class Runs:
    """An object that makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize(
    "codecs",
    [
        {"compressor": {"id": "pickle"}},
        {"filters": [{"id": "pickle"}]},
        {"dtype": "|O", "fill_value": "", "filters": [{"id": "vlen-utf8"}, {"id": "pickle"}]},
    ],
    ids=["compressor", "filter", "objects"],
)
def test_a_store_whose_codec_unpickles_is_refused_and_runs_nothing(tmp_path, codecs):
    path, ran = write(tmp_path / "data", "Zarr 2"), tmp_path / "ran"
    (path.with_name("a.zarr") / ".zmetadata").unlink()  # a copy of all others
    about = path.with_name("a.zarr") / "h" / ".zarray"
    about.write_text(json.dumps({**json.loads(about.read_text()), "compressor": None, "filters": None, **codecs}))
    for chunk in about.parent.glob("[0-9]*"):
        chunk.write_bytes(pickle.dumps(Runs(ran)))
    with pytest.raises(DataError, match="cannot be read as Zarr|expected real numbers for the field 'height'"):
        open_dataset(path).read(0, 0, 1)
    assert not ran.exists()


def stored(unit, calendar=""):
    return StoredArray((3,), np.dtype("f8"), unit=unit, calendar=calendar)


@pytest.mark.parametrize("unit", ["days since 2000-3-1", "hours since 1999-12-30T23:30:15.5Z"])
@pytest.mark.parametrize("calendar", ["", "proleptic_gregorian", "noleap"])
def test_times_count_from_another_date_as_cftime_has_them(unit, calendar):
    times, other, named = (0.0, 0.25, 400.0), "seconds since 2000-02-28 00:00:00", calendar or "standard"
    expected = cftime.date2num(cftime.num2date(times, unit, named), other, named)
    assert counted_from(times, stored(unit, calendar), stored(other, calendar)) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("unit", "calendar"),
    [("days", ""), ("days since 2000-02-30", ""), ("days since 2000-01-01", "noleap"), ("?", "")],
)
def test_what_is_no_date_of_the_other_calendar_is_not_taken_for_one(unit, calendar):
    other = stored("days since 2000-02-01", "standard")
    assert counted_from((1.0,), stored(unit, calendar), other) is None
    assert counted_from((1.0,), other, stored(unit, calendar)) is None
