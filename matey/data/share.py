"""Work on many files or windows: done one after the other, or shared out over ranks by who has some."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

Item = TypeVar("Item")
Value = TypeVar("Value")


class Share(Protocol):
    """Does a piece of work for each of some items, each once for all ranks; each rank gets all results, in order."""

    def __call__(self, work: Callable[[Item], Value], items: Sequence[Item], /) -> list[Value]:
        """Return the results; raise the first mistake, in the order of the items, on every rank."""


def alone(work: Callable[[Item], Value], items: Sequence[Item], /) -> list[Value]:
    """Do the work here."""
    return [work(item) for item in items]
