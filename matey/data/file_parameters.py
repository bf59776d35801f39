"""Reads the parameters of a trajectory from its file or name: attributes, arrays and numbers in names."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from matey.data.arrays.stored import as_number, as_text
from matey.data.numbered import number_in
from matey.data.opened_file import OpenedFile
from matey.data.trajectories import DataError


def parameters_of(file: OpenedFile, sample: int, count: int) -> Iterator[tuple[str, float]]:
    """Yield the parameters of a trajectory; attributes that the file lacks are left out."""
    for name, given in file.description.parameters.items():
        if isinstance(given, float):
            yield name, given
        elif given.attribute is not None:
            array = file.named(file.first_array)
            of_array = file.kind.attributes(file.path, array) if array in file.arrays else {}
            found = of_array | attributes_of(file)
            if given.attribute in found:
                yield name, _number_in(found[given.attribute], f"{file.path}, {given.attribute}", name, sample, count)
        elif given.in_name is not None:
            where = f"{file.path}/{file.named(file.first_array)}" if file.group else str(file.path)
            if (number := number_in(where, given.in_name)) is None:
                raise DataError(
                    f"{where}: expected the parameter {name!r} in its name as {given.in_name!r}, {{}} for the number; correct "
                    "in_name, or rename the files."
                )
            yield name, number
        elif given.array is not None:
            array = file.named(given.array)
            values = file.values(array, f" of the parameter {name!r}").reshape(-1)
            if len(values) not in (1, count):
                raise DataError(
                    f"{file.path}, {array}: expected one number, or one for each of {count} trajectories, for the parameter "
                    f"{name!r}, got {len(values)}."
                )
            yield name, float(values[sample if len(values) == count else 0])


def _number_in(value: object, label: str, name: str, sample: int, count: int) -> float:
    """Return a trajectory's parameter from an attribute that holds one number for all trajectories, or one for each."""
    if (number := as_number(value)) is not None:
        return number
    values = np.asarray(value)
    if values.shape != (count,) or values.dtype.kind not in "fiu":
        came = repr(as_text(value) if isinstance(value, str | bytes) else values.tolist())
        raise DataError(
            f"{label}: expected one number, or one for each of {count} trajectories, for the parameter {name!r}, got "
            f"{came[:60]}; write it as a number, or leave it out of parameters."
        )
    return float(values[sample])


def attributes_of(file: OpenedFile) -> dict[str, Any]:
    """Return the attributes of a file, and of the groups and arrays in it that a ``*`` stands for."""
    found = file.kind.attributes(file.path, "")
    pattern = file.first_array
    own = file.named(pattern).split("/")
    for depth, part in enumerate(pattern.split("/"), start=1):
        if "*" in part:
            found |= file.kind.attributes(file.path, "/".join(own[:depth]))
    return found
