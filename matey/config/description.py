"""A user's description of files that no reader knows: a YAML beside the data, or a part of the run YAML."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field, model_validator

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
"""Text around a number in the name of a file or a folder, with `NUMBER` in its place."""

WILDCARD = re.compile(r"((?:\*|\?|\[[^]]*\])+)")
"""A part of a path or glob that stands for text that differs between files."""


class FieldSource(Section):
    """The place of a field in the files; the name of an array alone is enough if nothing else is to be said."""

    array: ArrayPath | None = None
    """path of the array in the file; not needed for files of one array, such as .npy"""
    axes: Axes | None = None
    """axes of this array, if they differ from the common ones"""
    index: int | None = Field(None, ge=0, le=10**6)
    """position of the field along the axis 'component'"""
    unit: FieldName = "?"
    """unit of the values, after scaling"""
    scale: float = Field(1.0, gt=0)
    """number that stored values are multiplied by, such as 1e-25"""
    file: PathText | dict[PartName, PathText] | None = None
    """path of other files that hold the field; each * stands for the same text as in files"""


class ParameterSource(Section):
    """The place of a parameter that differs between trajectories: one of array, attribute, in_name and table."""

    array: ArrayPath | None = None
    """array of one number, or of one for each trajectory"""
    attribute: FieldName | None = None
    """attribute of the file, or of the first field's array"""
    in_name: NumberForm | None = None
    """text around the number in the name of the file or folder, such as Re{}"""

    table: PathText | None = None
    """path of a CSV with a row for each file or trajectory"""
    column: FieldName | None = None
    """column of the table; by default the name of the parameter"""

    @model_validator(mode="after")
    def _either(self) -> ParameterSource:
        if [self.array, self.attribute, self.in_name, self.table].count(None) != 3:
            raise ValueError("expected one of 'array', 'attribute', 'in_name' and 'table'")
        if self.column is not None and self.table is None:
            raise ValueError("'column' goes with 'table'")
        return self


class TimeSource(Section):
    """The place of the time of a snapshot that has a file of its own: one of the three."""

    attribute: FieldName | None = None
    """attribute of the file"""
    number_in_name: Length | None = None
    """unit of the number in the name of the snapshot's file: 0.01 makes 150 a time of 1.5"""
    date_in_name: DateForm | None = None
    """form of the date in the name of the snapshot's file, such as %Y-%m-%d_%H:%M:%S; times are then seconds"""

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


TODO = "TODO"
"""Value in a guessed description for facts that the file does not tell; it is refused until the user replaces it."""


class DataDescription(Section):
    """What a `matey.yaml` says of your own files."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, str_strip_whitespace=True)

    system: FieldName
    """name of the physical system, the same for all data of one kind"""
    files: Patterns | dict[PartName, Patterns] | None = None
    """paths or globs of all files, or of train, valid and test each, from the folder of this file; by default all there"""
    fields: dict[FieldName, FieldSource] = Field(min_length=1, max_length=1000)
    """fields that are predicted, by their names in the model, and their places"""
    given: dict[FieldName, FieldSource] = Field({}, max_length=1000)
    """fields that are known and never predicted, such as a forcing; leave out axes along which they are constant"""
    mask: dict[FieldName, float] = {}
    """given fields, and the value of each in cells that hold no data, such as {land: 1}; NaN needs no mask"""
    axes: Axes | None = None
    """axes of the arrays, in the order of the file; no time where each file is one snapshot"""
    spacing: dict[GridAxis, Length | ArrayPath]
    """size of a cell along each grid axis, or the name of the array of coordinates [that of the coordinates]"""
    time_step: Length | ArrayPath | TimeSource
    """time between snapshots, the name of the array of times, or the place of a snapshot's time [that of the times]"""
    concat: Literal["time"] | None = None
    """time, if the files of a trajectory follow each other in time, each with an axis time"""
    boundary: dict[GridAxis, Ends]
    """kind of boundary of each grid axis; the network tells periodic ones from all others, whose names go into files"""
    parameters: dict[FieldName, float | ParameterSource] = {}
    """numbers that differ between trajectories, such as a viscosity, or their places"""
    conserved: tuple[FieldName, ...] = ()
    """fields whose sum over the domain is constant; evaluation reports how far forecasts drift from it"""
    first_frame: int = Field(0, ge=0, le=10**9)
    """number of snapshots to leave out at the beginning [snapshots]"""
    stride: int = Field(1, ge=1, le=10**9)
    """step between the snapshots that are taken: 2 takes every other [snapshots]"""

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, tree: Any) -> Any:  # noqa: ANN401 (what a user wrote)
        if not isinstance(tree, dict):
            raise ValueError(
                f"expected keys such as system, fields and axes, got {'nothing' if tree is None else repr(tree)[:60]}"
            )
        if open_questions := [*_unanswered(tree, "")]:
            raise ValueError(f"{', '.join(open_questions)} still say {TODO}; write there what the files do not tell")
        tree = {
            key: _numbers(value) if key in ("spacing", "time_step", "parameters") else value
            for key, value in tree.items()
        }
        for key in ("fields", "given"):
            if isinstance(fields := tree.get(key), dict):
                tree[key] = {name: {"array": of} if isinstance(of, str) else of or {} for name, of in fields.items()}
        return tree

    @model_validator(mode="after")
    def _consistent(self) -> DataDescription:
        for name, source in self.fields.items():
            _check_axes(name, self.axes_of(source), source.index)
        for name, source in self.given.items():
            self._check_given(name, source)
        kinds = {frozenset(self.axes_of(source)) - {"component"} for source in self.fields.values()}
        if len(kinds) > 1:
            raise ValueError(
                f"fields: all need the same axes, in any order, except 'component'; got {sorted(map(sorted, kinds))}; what "
                "is constant in time belongs into 'given'"
            )
        for key, given in (("spacing", set(self.spacing)), ("boundary", set(self.boundary))):
            if given != set(self.grid):
                raise ValueError(
                    f"{key}: expected {', '.join(self.grid)}, as in axes, got {', '.join(given) or 'nothing'}"
                )
        self._check_files()
        for key, names, known in (("conserved", self.conserved, self.fields), ("mask", self.mask, self.given)):
            if others := [name for name in names if name not in known]:
                fields = "given fields" if key == "mask" else "fields"
                raise ValueError(
                    f"{key}: expected names of {fields}, got {others[0]!r}; there are {', '.join(known) or 'none'}"
                )
        places: dict[object, str] = {}
        for name, source in self.fields.items():
            first = places.setdefault((repr(source.file or self.files), source.array, source.index), name)
            if first != name:
                raise ValueError(f"fields: {first} and {name} are one and the same array; give each its own")
        return self

    def _check_files(self) -> None:
        if isinstance(self.time_step, TimeSource) and "time" in self.all_axes:
            raise ValueError(
                "time_step: an attribute or a name gives the time of one snapshot, but axes has 'time'; name an array"
            )
        for key, sources in (("fields", self.fields), ("given", self.given)):
            for name, source in sources.items():
                self._check_file(f"{key}.{name}", source, may_be_constant=key == "given")
        if all(source.file for source in self.fields.values()):
            raise ValueError("fields: expected at least one in the files that 'files' names; leave out its 'file'")

    def _check_file(self, name: str, source: FieldSource, *, may_be_constant: bool) -> None:
        """Raise ValueError if the own file of a field does not match ``files``."""
        if source.file is None:
            return
        if self.files is None or (isinstance(source.file, dict) and not isinstance(self.files, dict)):
            raise ValueError(f"{name}: 'file' needs 'files', and one 'file' for each part needs the parts in 'files'")
        may_be_constant = may_be_constant and not (self.in_files and "time" in self.axes_of(source))
        if self._is_constant(source) and not may_be_constant:
            raise ValueError(
                f"{name}: expected as many wildcards in 'file' as in 'files', got {source.file!r}; each stands for the "
                "same text as in 'files', and only given fields may be the same in several files"
            )

    def _check_given(self, name: str, source: FieldSource) -> None:
        axes = self.axes_of(source)
        if name in self.fields:
            raise ValueError(f"given.{name}: a field is predicted or given, not both; name it in one of them")
        if len(set(axes)) != len(axes) or not set(axes) & {"x", "y", "z"} or set(axes) - self.all_axes - {"component"}:
            raise ValueError(
                f"given.{name}: expected some of the axes of the fields, each once, at least one of them of the grid, got "
                f"{', '.join(axes) or 'none'}"
            )
        _check_component(f"given.{name}", axes, source.index)

    def axes_of(self, source: FieldSource) -> tuple[Axis, ...]:
        """Return the axes of a field's array."""
        return source.axes or self.axes or ()

    @property
    def all_axes(self) -> set[Axis]:
        """Axes of the fields, but for components."""
        return {axis for source in self.fields.values() for axis in self.axes_of(source)} - {"component"}

    @property
    def in_files(self) -> bool:
        """Whether a trajectory is put together from files; without an axis 'time', each file is a snapshot."""
        return self.concat is not None or "time" not in self.all_axes

    @property
    def tables(self) -> tuple[str, ...]:
        """Paths of the tables of parameters."""
        sources = (source for source in self.parameters.values() if isinstance(source, ParameterSource))
        return tuple(source.table for source in sources if source.table is not None)

    def varies(self, source: FieldSource) -> bool:
        """Whether a given field may vary in time; in files of snapshots, each file has its own values."""
        if "time" in self.all_axes:
            return "time" in self.axes_of(source)
        return source.file is None or not self._is_constant(source)

    def _is_constant(self, source: FieldSource) -> bool:
        """Whether one of a field's own files belongs to several of ``files``."""
        named = source.file.values() if isinstance(source.file, dict) else [source.file or ""]
        return min(num_wildcards(path) for path in named) < max(map(num_wildcards, patterns_in(self.files)))

    @property
    def grid(self) -> tuple[GridAxis, ...]:
        """The grid axes of the data, slowest first."""
        first = self.axes_of(next(iter(self.fields.values())))
        along: tuple[GridAxis, ...] = ("z", "y", "x")
        return tuple(axis for axis in along if axis in first)


def _check_axes(name: str, axes: tuple[Axis, ...], index: int | None) -> None:
    if not axes:
        raise ValueError("axes: expected the axes of the arrays, such as [trajectory, time, y, x]")
    if len(set(axes)) != len(axes):
        raise ValueError(f"fields.{name}: expected each axis once, got {', '.join(axes)}")
    grid = [axis for axis in ("x", "y", "z") if axis in axes]
    if grid not in (["x"], ["x", "y"], ["x", "y", "z"]):
        raise ValueError(f"fields.{name}: expected the grid axes x; y, x; or z, y, x, got {', '.join(axes)}")
    _check_component(f"fields.{name}", axes, index)


def _check_component(key: str, axes: tuple[Axis, ...], index: int | None) -> None:
    if ("component" in axes) != (index is not None):
        raise ValueError(f"{key}: an 'index' goes with an axis 'component', and the axis with an index")


def _numbers(value: Any) -> Any:  # noqa: ANN401
    """Return a value, or the values of a mapping, with texts such as 1e-3 as numbers, which YAML does not recognise."""
    if isinstance(value, dict):
        return {key: _numbers(item) for key, item in value.items()}
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _unanswered(tree: object, path: str) -> Iterator[str]:
    """Yield the places of a tree that still hold `TODO`."""
    if tree == TODO:
        yield path
    items: list[tuple[object, object]] = []
    if isinstance(tree, dict):
        items = [*tree.items()]
        yield from (f"{path}.{key}".lstrip(".") for key in tree if key == TODO)
    elif isinstance(tree, list | tuple):
        items = [*enumerate(tree)]
    for key, value in items:
        yield from _unanswered(value, f"{path}.{key}".lstrip("."))
