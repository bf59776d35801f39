"""Work on many files or windows, done one after the other or shared out over ranks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

Item = TypeVar("Item")
Value = TypeVar("Value")


class Share(Protocol):
    """Function that does a piece of work for each item, once for all ranks; each rank gets all results, in order."""

    def __call__(self, work: Callable[[Item], Value], items: Sequence[Item], /) -> list[Value]:
        """Return the results; raise the first error, in the order of the items, on every rank."""


def alone(work: Callable[[Item], Value], items: Sequence[Item], /) -> list[Value]:
    """Do all of the work in this process."""
    return [work(item) for item in items]
