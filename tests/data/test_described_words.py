"""What is said of descriptions and files that do not fit each other, and of what is not supported."""

import json
import os
import pickle

import cftime
import numpy as np
import pytest

from matey.data import DataError, open_dataset
from matey.data.dates import counted_from
from matey.data.stored import StoredArray
from tests.support.described_files import dataset, write
from tests.support.layout_files import NUM_X

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


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [", "is not YAML"),
        ("a: &b 1\nc: *b", "alias"),
        ("system: a\nsystem: b", r"has the key 'system' twice \(line 2\)"),
    ],
)
def test_a_description_that_is_no_plain_mapping_is_a_sentence(tmp_path, text, words):
    (tmp_path / "matey.yaml").write_text(text)
    with pytest.raises(DataError, match=rf"matey.yaml.*{words}"):
        open_dataset(tmp_path / "matey.yaml")


@pytest.mark.parametrize(
    ("name", "values", "words"),
    [
        (
            "lon",
            np.geomspace(1, 2, NUM_X),
            r"lon: expected evenly spaced coordinates, got a step of .* uneven spacing is not",
        ),
        ("lat", [0, 1, 2, 3, 3, 4, 5, 6], "lat: expected increasing coordinates"),
        # a minute that is missing, of times in seconds since 1970
        (
            "time",
            1.6e9 + 60 * np.array([0, 1, 2, 4, 5, 6]),
            "time: expected evenly spaced coordinates, got a step of 120",
        ),
        (
            "time",
            [0, 1, 2, 3, 4, 9],
            "time: expected evenly spaced .* write snapshots at even times, or give a time_step",
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
            r"a.npy is none of .*: it begins with b.PK.*docs/data.md says",
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
