"""Reads parameters of trajectories from a table: a row for each file or trajectory, a column for each parameter.

    run,Re,angle               or, in JSON:   {"run_00": {"Re": 100, "angle": 0.5},
    run_00,100,0.5                             "run_01": {"Re": 200}}
    run_01,200,

A row has the name of its file or the path from the table's folder, with or without the suffix; or the name of its trajectory;
or both, such as ``run_00.h5/3``, where several files have trajectories of the same names. An empty cell stands for an unknown
number.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from matey.config.description import ParameterSource
from matey.config.files import PlainTextError, parse_json, read_text
from matey.data.remote import place, seen_from
from matey.data.trajectories import DataError, Trajectory
from matey.mistakes import listed, nearest_name, regular


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        path: the file that it was read from.
        columns: names of the columns, except the first in CSV.
        rows: cells by the name of the row and that of the column.
    """

    path: Path
    columns: tuple[str, ...]
    rows: Mapping[str, Mapping[str, object]]

    def number(self, column: str, about: Trajectory) -> float | None:
        """Return a trajectory's number in a column, None where its cell is empty.

        Raises:
            DataError: there is no such column or row, or the cell holds something else.
        """
        if column not in self.columns:
            raise DataError(
                f"{self.path}: expected a column {column!r} of a parameter, found {listed(self.columns)}."
                f"{nearest_name(column, self.columns)} Correct the table, or name another 'column' in the description."
            )
        path = seen_from(self.path.parent, about.source)
        files = (path, path.removesuffix(about.source.suffix), about.source.name, about.source.stem)
        names = (*(f"{file}/{about.name}" for file in files), *files, about.name)
        name = next((name for name in names if name in self.rows), None)
        if name is None:
            wanted = " or ".join(dict.fromkeys(map(repr, (*files[2:], about.name))))
            raise DataError(
                f"{self.path}: expected a row {wanted} for {about.label}, found "
                f"{listed(self.rows)}; add it, with empty cells where nothing is known."
            )
        cell = self.rows[name].get(column)
        try:
            number = math.nan if cell in (None, "") else float(str(cell))
        except ValueError:
            number = math.inf
        if math.isinf(number):
            raise DataError(
                f"{self.path}: expected a number in the column {column!r} of the row {name!r}, got {str(cell)[:60]!r}; correct "
                "it, or leave it out where it is not known."
            )
        return None if math.isnan(number) else number


def parameters_in_tables(
    sources: Mapping[str, float | ParameterSource], about: Trajectory
) -> Iterator[tuple[str, float]]:
    """Yield the parameters of a trajectory that a description takes from tables, named by full paths.

    Raises:
        DataError: a table cannot be read, or lacks a column, row or number.
    """
    for name, source in sources.items():
        if isinstance(source, ParameterSource) and source.table is not None:
            number = _table(source.table, _changed(source.table)).number(source.column or name, about)
            if number is not None:
                yield name, number


def _changed(path: str) -> tuple[int, int]:
    """Return the size and modification time of a table."""
    try:
        found = place(path).stat()
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror}), where the description has a table of parameters; put it there, or "
            "correct 'table'."
        ) from None
    return found.st_size, found.st_mtime_ns


@lru_cache(maxsize=8)  # many files ask for the same table
def _table(text: str, changed: tuple[int, int]) -> Table:
    path = place(text)
    try:
        content = read_text(regular(path))
        rows = _rows_of_json(content) if path.suffix == ".json" else _rows_of_csv(content)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}).") from None
    except PlainTextError as error:
        raise DataError(f"{path} {error}.") from None
    return Table(path, tuple(dict.fromkeys(column for row in rows.values() for column in row)), rows)


def _rows_of_json(content: str) -> dict[str, dict[str, object]]:
    rows = parse_json(content)
    if not isinstance(rows, dict) or not rows or not all(isinstance(row, dict) for row in rows.values()):
        raise PlainTextError('is not a table: expected each row with its numbers, such as {"run_00": {"Re": 100}}')
    return rows


def _rows_of_csv(content: str) -> dict[str, dict[str, object]]:
    try:
        lines = [[cell.strip() for cell in line] for line in csv.reader(io.StringIO(content, newline=""), strict=True)]
    except csv.Error as error:
        raise PlainTextError(f"is not CSV: {error}") from None
    header, *lines = [line for line in lines if any(line)] or [[]]
    if len(header) < 2 or not lines or len({*header}) < len(header):
        raise PlainTextError(
            "is not a table: expected a first line with the names of columns, each once and divided by commas, and a line for "
            f"each row, the name of its file or trajectory first; got {','.join(header)[:60]!r} and {len(lines)} rows"
        )
    rows: dict[str, dict[str, object]] = {}
    for name, *cells in lines:
        if name in rows or len(cells) != len(header) - 1:
            wrong = (
                "occurs twice" if name in rows else f"has {len(cells) + 1} cells below {len(header)} names of columns"
            )
            raise PlainTextError(f"is not a table: the row {name[:60]!r} {wrong}; correct it")
        rows[name] = dict(zip(header[1:], cells, strict=True))
    return rows
