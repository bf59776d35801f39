"""Places of fields, parameters and times in files that no reader knows, as a description of these files names them."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from matey.config.section import BoundedText, FieldName, PathText, Section

Axis = Literal["trajectory", "time", "z", "y", "x", "component"]
GridAxis = Literal["z", "y", "x"]
Ends = Literal["periodic", "open", "wall", "no_flux", "mixed"]
PartName = Literal["train", "valid", "test"]
ArrayPath = Annotated[BoundedText, AfterValidator(lambda path: path.strip("/"))]
"""Path of an array in its file; the leading ``/`` that h5dump writes is allowed."""
Patterns = PathText | Annotated[tuple[PathText, ...], Field(min_length=1)]
Axes = Annotated[tuple[Axis, ...], Field(min_length=1, max_length=6)]
Length = Annotated[float, Field(gt=0, le=1e30, strict=True)]
DATE_DIGITS = {"%Y": 4, "%m": 2, "%d": 2, "%j": 3, "%H": 2, "%M": 2, "%S": 2}
"""The directives of `datetime.strptime` that the form of a date may have, and their numbers of digits."""


def _check_date_form(form: str) -> str:
    parts = re.findall("%.?", form)
    if "%Y" not in parts or len({*parts}) < len(parts) or not DATE_DIGITS.keys() >= {*parts}:
        raise ValueError(
            f"expected a form of dates with %Y, and with any of {' '.join([*DATE_DIGITS][1:])}, each once at most, got {form!r}"
        )
    return form


DateForm = Annotated[BoundedText, AfterValidator(_check_date_form)]
"""Form of a date, as `datetime.strptime` reads it."""


def _check_number_form(form: str) -> str:
    if form.count(NUMBER) != 1 or form == NUMBER or re.search(r"[*/]", form):
        raise ValueError(f"expected a text with one {NUMBER} for the number, such as 'Re{NUMBER}', got {form!r}")
    return form


NUMBER = "{}"
NumberForm = Annotated[BoundedText, AfterValidator(_check_number_form)]
"""Text around a number in the name of a file, a folder or a group, with `NUMBER` in its place."""

WILDCARD = re.compile(r"((?:\*|\?|\[[^]]*\])+)")
"""A part of a path or glob that stands for text that differs between files."""


class FieldSource(Section):
    """The place of a field in a file; a text alone is the name of its array."""

    array: ArrayPath | None = Field(
        None, description="path of the array in the file; it may be left out of a file with one array, such as .npy"
    )
    axes: Axes | None = Field(None, description="axes of this array, where they are not those of all others")
    index: int | None = Field(None, ge=0, le=10**6, description="position of the field along the axis 'component'")
    unit: FieldName = Field("?", description="unit of the values, scaled as they may be")
    scale: float = Field(
        1.0, gt=0, description="factor for the stored values, where these are very large or small: 1e-25"
    )
    file: PathText | dict[PartName, PathText] | None = Field(
        None, description="path of a file of its own; each '*' stands for what that of 'files' does"
    )


class ParameterSource(Section):
    """The place in a file of a parameter that differs between trajectories."""

    array: ArrayPath | None = Field(None, description="array of a number, or of one for each trajectory")
    attribute: FieldName | None = Field(None, description="attribute of the file, or of the trajectory's group")
    in_name: NumberForm | None = Field(
        None, description="text around it in the name of its file, folder or group, with '{}' for the number: 'Re{}'"
    )

    table: PathText | None = Field(
        None, description="path of a table, .csv or .json, with a row for each file or trajectory"
    )
    column: FieldName | None = Field(None, description="column of the table; by default the name of the parameter")

    @model_validator(mode="after")
    def _either(self) -> ParameterSource:
        if [self.array, self.attribute, self.in_name, self.table].count(None) != 3:
            raise ValueError("expected one of 'array', 'attribute', 'in_name' and 'table'")
        if self.column is not None and self.table is None:
            raise ValueError("'column' goes with 'table'")
        if self.table is not None and not self.table.endswith((".csv", ".json")):
            raise ValueError(f"expected a table in .csv or .json, got {self.table!r}")
        return self


class TimeSource(Section):
    """The place of the time of a snapshot."""

    attribute: FieldName | None = Field(None, description="attribute of the file, or of the snapshot's group")
    number_in_name: Length | None = Field(
        None, description="unit of the number that tells the snapshot's file, or array, from the others"
    )
    date_in_name: DateForm | None = Field(
        None,
        description="form of the date in the name of its file, or array, such as '%Y-%m-%d_%H:%M:%S'; times are seconds",
    )

    @model_validator(mode="after")
    def _either(self) -> TimeSource:
        if [self.attribute, self.number_in_name, self.date_in_name].count(None) != 2:
            raise ValueError("expected one of 'attribute', 'number_in_name' and 'date_in_name'")
        return self


def num_wildcards(pattern: str) -> int:
    """Return the number of wildcards in a path or glob; adjacent ones count as one."""
    return len(WILDCARD.findall(pattern))


def patterns_in(files: Patterns | dict[PartName, Patterns] | None) -> list[str]:
    """Return all paths and globs of ``files``."""
    of_parts = files.values() if isinstance(files, dict) else [] if files is None else [files]
    return [one for some in of_parts for one in ((some,) if isinstance(some, str) else some)]
