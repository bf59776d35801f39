"""Order of names that numbers tell apart, such as those of snapshots: step 9 comes before step 10."""

from __future__ import annotations

import re
from collections.abc import Sequence
from os.path import commonprefix

_NUMBER = re.compile(r"\d+\.?\d*([eE][+-]?\d+)?")


def in_order(names: Sequence[str]) -> list[str]:
    """Return names by the numbers that tell them apart; where more than one does, by each of them from left to right."""
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
    rest = [name[len(head) : len(name) - len(tail)].rstrip(".") for name in names]
    return [float(text) for text in rest] if all(map(_NUMBER.fullmatch, rest)) else None
