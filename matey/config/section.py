"""The base class of the sections that a user writes, and the types of their names and paths, of bounded length."""

from __future__ import annotations

import os
import re
from os.path import expanduser
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


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

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)
