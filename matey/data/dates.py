"""Numbers and dates: in the names of files, and as the date from which times count, which cftime reads."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from os.path import commonprefix

import numpy as np

from matey.config.description import DATE_DIGITS, NUMBER
from matey.data.stored import StoredArray
from matey.mistakes import DataError

UNIT, CALENDAR = "seconds since 1970-01-01", "proleptic_gregorian"
_NUMBER = re.compile(r"\d+\.?\d*([eE][+-]?\d+)?")
_USUAL = ("standard", "gregorian", "proleptic_gregorian")  # the same calendar from 1583 on


def counted_from(times: Sequence[float], stored: StoredArray, other: StoredArray) -> tuple[float, ...] | None:
    """Convert times to the unit and the starting date of another array, such as ``days since 2000-02-01``.

    Args:
        times: the times.
        stored: the array that the times come from.
        other: the array that sets the new unit and starting date.

    Returns:
        The converted times; None where a unit cannot be converted, or one counts in another calendar.
    """
    ours, theirs = ((each.calendar or "standard").lower() for each in (stored, other))
    if ours != theirs and not {ours, theirs} <= {*_USUAL}:
        return None
    if stored.unit == other.unit:
        return tuple(times)
    import cftime  # late, as most data has no dates

    try:
        dates = cftime.num2date(times, stored.unit, theirs)
        return tuple(np.asarray(cftime.date2num(dates, other.unit, theirs), float).tolist())
    except (OverflowError, ValueError):
        return None


def count_from_a_date(unit: str, calendar: str) -> bool:
    """Whether a unit such as ``days since 2000-01-01`` starts at a valid date of a known calendar, as other programs need."""
    import cftime

    try:
        cftime.num2date(0, unit, (calendar or "standard").lower())
    except (OverflowError, ValueError):
        return False
    return True


def in_order(names: Sequence[str], dates: str | None = None) -> list[str]:
    """Sort names by the number in which they differ; where there are several, by each of these from left to right.

    Where ``dates`` is a form of date, they are sorted by the date in each.
    """
    if dates:
        return sorted(names, key=lambda name: date_in(name, dates))
    numbers = numbers_in(names)
    if numbers is not None:
        return [name for _, name in sorted(zip(numbers, names, strict=True))]
    return sorted(
        names, key=lambda name: [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]
    )


def numbers_in(names: Sequence[str]) -> list[float] | None:
    """Return the number that tells each name from the others; None where they differ in more than one number, or in words.

    >>> numbers_in(["run_3/t_0.5.npy", "run_3/t_0.25.npy"])
    [0.5, 0.25]
    """
    if len(names) < 2:
        return [0.0] * len(names)
    head = re.sub(r"(\d[\d.]*[eE][+-]?)?[\d.]*$", "", commonprefix(list(names)))
    tail = re.sub(r"^[\d.]*", "", commonprefix([name[::-1] for name in names])[::-1])
    rest = [name[len(head) : len(name) - len(tail)].strip(".") for name in names]
    if not all(map(_NUMBER.fullmatch, rest)):
        return None
    return [float(text) for text in rest]


def date_in(name: str, form: str) -> float:
    """Return the seconds from 1970 to the last date in a name, of the form that `datetime.strptime` reads.

    Raises:
        DataError: the name has no valid date.

    >>> date_in("out_2020-02-28_12.nc", "%Y-%m-%d_%H")
    1582891200.0
    """
    try:
        return datetime.strptime(re.findall(date_pattern(form), name)[-1], form).replace(tzinfo=UTC).timestamp()
    except (IndexError, ValueError):
        raise DataError(
            f"{name}: expected a date of the form {form} in its name; correct date_in_name of time_step."
        ) from None


def number_in(name: str, form: str) -> float | None:
    """Return the number in a name or path, None where there is none.

    Args:
        name: the name; the last match in it counts.
        form: text around the number, see `matey.config.description.NumberForm`; no letter may stand right before or after it.

    >>> [number_in("flow/Re1e3_nu_0.01.h5", form) for form in ("Re{}", "nu_{}")]
    [1000.0, 0.01]
    """
    before, after = map(re.escape, form.split(NUMBER))
    start = r"(?<![A-Za-z])" if before[:1].isalpha() else "" if before else r"(?<![\d.])"
    end = r"(?![A-Za-z])" if after[-1:].isalpha() else ""
    found = re.findall(rf"{start}{before}([-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?){after}{end}", name)
    return float(found[-1]) if found else None


def date_pattern(form: str) -> str:
    """Return the regular expression of dates of a form."""
    parts = re.split("(%.)", form)
    digits = (rf"\d{{{DATE_DIGITS[part]}}}" if number % 2 else re.escape(part) for number, part in enumerate(parts))
    return rf"(?<!\d){''.join(digits)}(?!\d)"
