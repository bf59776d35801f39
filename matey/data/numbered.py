"""Sorts names that differ in numbers, such as those of snapshots: step 9 comes before step 10."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from os.path import commonprefix

from matey.config.description import DATE_DIGITS, NUMBER

_NUMBER = re.compile(r"\d+\.?\d*([eE][+-]?\d+)?")
_WORD_AND_NUMBER = re.compile(
    r"(?<![A-Za-z])(?!(?i:t|time)\d)[A-Za-z]+[1-9]\d*"
)  # such as out1, but not the dt0 of dt0.5


def in_order(names: Sequence[str], dates: str | None = None) -> list[str]:
    """Sort names by the number in which they differ; where there are several, by each of these from left to right.

    Where ``dates`` is a form of date that all names hold, they are sorted by date.
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
    if not all(map(_NUMBER.fullmatch, rest)):
        return None
    return [float(text) for text in _without_shared(rest, head)]


def place_of_last(name: str) -> tuple[int, int] | None:
    """Return where the last number of a name starts and ends, None where it has none.

    A number padded with zeros after a word and its number, such as the 00010 of ``Sod.out1.00010``, is a count, no fraction.

    >>> [name[slice(*place_of_last(name))] for name in ("Sod.out1.00010", "t_0.0050", "run_7_end")]
    ['00010', '0.0050', '7']
    """
    if counting := re.search(rf"{_WORD_AND_NUMBER.pattern}\.(0\d{{3,}})(?=\D*$)", name):
        return counting.span(1)
    last = re.search(r"\d+(?:\.\d+)?(?=\D*$)", name)
    return last and last.span()


def _without_shared(numbers: list[str], head: str) -> list[str]:
    """Return the parts after the dot of numbers that share the part before it, if these are counts; else the numbers.

    They are counts where they have one width, some padded with zeros, after a word and its number (``out1.00010``), or where
    some of different widths end with a zero, unlike fractions (``sim1.9``, ``sim1.10``). ``head`` is the text before them.
    """
    parts = [number.split(".") for number in numbers]
    if len({part[0] for part in parts}) > 1 or not all(len(part) == 2 and part[1].isdecimal() for part in parts):
        return numbers
    counts = [part[1] for part in parts]
    zeros_before, zeros_after = (any(len(count) > 1 and count[end] == "0" for count in counts) for end in (0, -1))
    if len({*map(len, counts)}) > 1:
        return counts if zeros_after and not zeros_before else numbers
    return counts if zeros_before and re.search(rf"{_WORD_AND_NUMBER.pattern}$", head + parts[0][0]) else numbers


def seconds_of(names: Sequence[str], form: str) -> list[float] | None:
    """Return the seconds from 1970 to the date in each name; None where a name has no valid date.

    Args:
        names: the names; the last date in each counts.
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
