"""The base class of the sections that a user writes, and the types of their names and paths, of bounded length."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from os.path import expanduser
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import PydanticCustomError


def expand_variables(path: str) -> str:
    """Return a path with environment variables replaced by their values, as in ``$SCRATCH/run`` or ``${SCRATCH}/run``.

    Raises:
        ValueError: a variable is not set, or empty; or there is a null byte.
    """
    if "\0" in path:
        raise ValueError(f"{path!r} holds a null byte, which no path can; remove it")

    def value(match: re.Match[str]) -> str:
        name = match["name"]
        if not (found := os.environ.get(name)):  # an empty one would lead to the root of the disk
            raise ValueError(f"{path!r} names the variable {name}, which is not set; set it, or write the path out")
        return found

    return re.sub(r"\$(?P<brace>\{)?(?P<name>[A-Za-z_]\w*)(?(brace)\})", value, path)


def on_this_machine(path: str) -> str:
    """Return the path of a file or folder that is written or loaded; raise ValueError for a URL."""
    if "://" in path:
        raise ValueError(f"expected a path on this machine, got the URL {path[:80]!r}")
    return path


BoundedText = Annotated[str, Field(min_length=1, max_length=4096)]
PathText = Annotated[BoundedText, AfterValidator(expand_variables)]
FolderText = Annotated[PathText, AfterValidator(expanduser), AfterValidator(on_this_machine)]
FieldName = Annotated[str, Field(min_length=1, max_length=200)]


class Section(BaseModel):
    """A part of the run YAML; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @classmethod
    def model_validate(cls, obj: Any, **how: Any) -> Self:  # noqa: ANN401
        """Return a section with the values of a tree; raise ValidationError if they do not fit, also true for a number."""
        found = super().model_validate(obj, **how)
        if wrong := [*_switches(obj, found, ())]:
            error = PydanticCustomError("number", "expected a number, not true or false")
            raise ValidationError.from_exception_data(
                cls.__name__, [{"type": error, "loc": place, "input": value} for place, value in wrong]
            )
        return found


def _switches(given: Any, read: Any, place: tuple[int | str, ...]) -> Iterator[tuple[tuple[int | str, ...], bool]]:  # noqa: ANN401
    """Yield where pydantic has read true or false as 1 or 0, and which of them."""
    if isinstance(given, bool) and not isinstance(read, bool):
        yield place, given
    parts: Iterable[tuple[int | str, Any, Any]] = ()
    if isinstance(given, dict) and isinstance(read, dict | Section):
        values = read if isinstance(read, dict) else vars(read)
        parts = ((key, given[key], values[key]) for key in given.keys() & values.keys())
    elif isinstance(given, list | tuple) and isinstance(read, list | tuple):
        parts = zip(range(len(given)), given, read, strict=True)
    for key, inside, read_inside in parts:
        yield from _switches(inside, read_inside, (*place, key))
