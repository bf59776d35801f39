"""Order of names that numbers tell apart, such as those of snapshots: step 9 comes before step 10."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from os.path import commonprefix

from matey.config.places import DATE_DIGITS, NUMBER

_NUMBER = re.compile(r"\d+\.?\d*([eE][+-]?\d+)?")


def in_order(names: Sequence[str], dates: str | None = None) -> list[str]:
    """Return names by the numbers that tell them apart; where more than one does, by each of them from left to right.

    With the form of ``dates`` that all have, by these.
    """
    if dates and (seconds := seconds_of(names, dates)) is not None:
        return [name for _, name in sorted(zip(seconds, names, strict=True))]
    numbers = numbers_of(names)
    if numbers is not None:
        return [name for _, name in sorted(zip(numbers, names, strict=True))]
    return sorted(
        names, key=lambda name: [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]
    )


def numbers_of(names: Sequence[str]) -> list[float] | None:
    """Return the number that tells each name from the others; None where they differ in more than one number, or in words.

    >>> numbers_of(["run_3/t_0.5.npy", "run_3/t_0.25.npy"])
    [0.5, 0.25]
    """
    if len(names) < 2:
        return [0.0] * len(names)
    head = re.sub(r"(\d[\d.]*[eE][+-]?)?[\d.]*$", "", commonprefix(list(names)))
    tail = re.sub(r"^[\d.]*", "", commonprefix([name[::-1] for name in names])[::-1])
    rest = [name[len(head) : len(name) - len(tail)].strip(".") for name in names]
    return [float(text) for text in rest] if all(map(_NUMBER.fullmatch, rest)) else None


def seconds_of(names: Sequence[str], form: str) -> list[float] | None:
    """Return the seconds from 1970 to the date in each name; None where one has no date, or one that is none.

    Args:
        names: the names, in which a date is looked for from the right.
        form: form of the dates, as `datetime.strptime` reads them.

    >>> seconds_of(["out_2020-02-28_12.nc", "out_2020-03-01_00.nc"], "%Y-%m-%d_%H")
    [1582891200.0, 1583020800.0]
    """
    found = [re.findall(date_pattern(form), name) for name in names]
    try:
        dates = [datetime.strptime(each[-1], form).replace(tzinfo=UTC) for each in found]
    except (IndexError, ValueError):
        return None
    return [date.timestamp() for date in dates]


def number_in(name: str, form: str) -> float | None:
    """Return the number in a name or path, None where there is none.

    Args:
        name: the name, in which the number is looked for from the right.
        form: text around it, see `matey.config.places.NumberForm`; letters of the name do not go on before or after it.

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
