"""Finds the system in each data set of a comparison; needs no PyTorch."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from matey.data import DataError, open_dataset
from matey.data.remote.paths import within
from matey.studies.folder import StudyError


def paths_by_system(paths: Iterable[str], root: Path) -> dict[str, str]:
    """Return the paths of data sets by the system in each.

    Args:
        paths: paths of the data, relative to ``root``.
        root: root folder of the repository.

    Raises:
        StudyError: the data cannot be read, or two sets hold the same system.
    """
    found: dict[str, str] = {}
    for path in paths:
        full = str(within(root, path))
        try:
            system = open_dataset(full).system
        except DataError as error:
            raise StudyError(f"--data {path}: {error}") from None
        if system in found:
            raise StudyError(f"{path} and {found[system]} both hold {system}; give one set for each system.")
        found[system] = full
    return found
