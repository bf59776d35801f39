"""Reads times written as text, such as WRF's ``Times``, in seconds, and converts times counted from a date."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime

import numpy as np

from matey.data.arrays.stored import StoredArray
from matey.data.trajectories import DataError

UNIT, CALENDAR = "seconds since 1970-01-01", "proleptic_gregorian"
_LONGEST = 40  # characters of a text that an error quotes
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_SINCE = re.compile(
    r"(s|sec|second|min|minute|h|hr|hour|d|day)s? since (\d{1,6})-(\d{1,2})-(\d{1,2})(?:[T ]+(\d+):(\d+)(?::(\d+\.?\d*))?)?"
    r" ?(?:Z|UTC|[+-]?0?0:?00)?",
    re.IGNORECASE,
)
_CALENDARS = {
    "": "standard",
    "gregorian": "standard",
    "proleptic_gregorian": "standard",
    "365_day": "noleap",
    "366_day": "all_leap",
}


def is_text(stored: StoredArray) -> bool:
    """Whether an array holds texts or characters."""
    return stored.dtype.kind in "SUO"


def as_times(stored: StoredArray) -> StoredArray:
    """Return the description of an array of texts as that of the times it is read as; other arrays stay as they are."""
    if not is_text(stored):
        return stored
    plain = np.dtype(stored.dtype.str)  # without h5py's metadata, which has no place in an index
    return replace(stored, dtype=plain, unit=UNIT, calendar=CALENDAR)


def numbers_of(stored: StoredArray, raw: np.ndarray, label: str) -> np.ndarray:
    """Return coordinates as numbers, dates written as text in seconds since 1970; ``label`` names them in errors.

    Raises:
        DataError: a text is not a date.
    """
    raw = np.asarray(raw)  # h5py returns a scalar text as bytes
    if not is_text(stored):
        return stored.packing.unpacked(raw).astype(np.float64)
    texts = np.array(
        [each.decode("ascii", "replace") if isinstance(each, bytes) else str(each) for each in raw.reshape(-1)]
    )
    if raw.ndim > 1 and raw.dtype in (np.dtype("S1"), np.dtype("U1")):  # single characters along the last axis
        texts = np.array(["".join(each) for each in texts.reshape(-1, raw.shape[-1])]).reshape(raw.shape[:-1])
    return np.array([_seconds(text.strip(" \0"), label) for text in texts.reshape(-1)]).reshape(texts.shape)


def _seconds(text: str, label: str) -> float:
    try:
        date = datetime.fromisoformat(text)  # any character may stand between day and time
    except ValueError:
        raise DataError(
            f"{label}: expected dates such as 2000-01-24_12:00:00 as times, got {text[:_LONGEST]!r}; give time_step as a "
            "number."
        ) from None
    return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()


def counted_from(times: Sequence[float], stored: StoredArray, other: StoredArray) -> tuple[float, ...] | None:
    """Convert times to the unit and the starting date of another array, such as ``days since 2000-02-01``.

    Args:
        times: the times.
        stored: the array that the times come from.
        other: the array that sets the new unit and starting date.

    Returns:
        The converted times; None where a unit cannot be converted, or the calendars differ.
    """
    calendars = [_CALENDARS.get(each.calendar.lower(), each.calendar.lower()) for each in (stored, other)]
    if stored.unit == other.unit and calendars[0] == calendars[1]:
        return tuple(times)
    ours, theirs = (_origin(each.unit, calendar) for each, calendar in zip((stored, other), calendars, strict=True))
    if ours is None or theirs is None or ours[0] != theirs[0]:
        return None
    (_, start, unit), (_, new_start, new_unit) = ours, theirs
    return tuple((start - new_start + time * unit) / new_unit for time in times)


def count_from_a_date(unit: str, calendar: str) -> bool:
    """Whether a unit such as ``days since 2000-01-01`` starts at a valid date of a known calendar, as other programs need."""
    name, begins = _CALENDARS.get(calendar.lower(), calendar.lower()), _match(unit)
    if begins is None or int(begins[2]) == 0:  # many programs have no year 0
        return False
    return _day("all_leap" if name == "julian" else name, begins) is not None


def _match(unit: str) -> re.Match[str] | None:
    return _SINCE.fullmatch(" ".join(unit.split()))


def _origin(unit: str, calendar: str) -> tuple[str, float, int] | None:
    """Return the calendar of times counted from a date, this date in seconds, and the seconds in one unit of the times."""
    begins = _match(unit)
    day = begins and _day(calendar, begins)
    if begins is None or day is None or (calendar == "standard" and int(begins[2]) <= 1582):
        return None  # files disagree on what the earlier dates of the standard calendar mean
    hour, minute, second = (float(part or 0) for part in begins.group(5, 6, 7))
    return calendar, 86400 * day + 3600 * hour + 60 * minute + second, _SECONDS[begins[1][0].lower()]


def _day(calendar: str, begins: re.Match[str]) -> int | None:
    """Return the number of the day from which times count; None where its calendar has no such day or is unknown."""
    year, month, day = map(int, begins.group(2, 3, 4))
    try:
        if calendar == "360_day":
            return 360 * year + 30 * month + day if 1 <= month <= 12 and 1 <= day <= 30 else None
        if calendar in ("noleap", "all_leap"):
            same = 1 if calendar == "noleap" else 4  # a year of the calendar's length
            return (365 if same == 1 else 366) * year + (date(same, month, day) - date(same, 1, 1)).days
        return date(year, month, day).toordinal() if calendar == "standard" else None
    except ValueError:
        return None
