"""Times that count from a date, beside the library that climate models use."""

import cftime
import numpy as np
import pytest

from matey.data.dates import counted_from, numbers_of
from matey.data.stored import StoredArray


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


def test_a_single_text_is_a_date_as_h5py_gives_it():
    text = StoredArray((), np.dtype("O"))
    assert numbers_of(text, b"1970-01-02_00:00:00", "time") == 86400


def test_times_of_one_unit_stay_as_they_are_whatever_it_is():
    assert counted_from((0.1, 0.3), stored("fortnights"), stored("fortnights")) == (0.1, 0.3)
    assert counted_from((0.1, 0.3), stored("s", "gregorian"), stored("s")) == (0.1, 0.3)
