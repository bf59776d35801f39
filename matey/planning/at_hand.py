"""Checks without PyTorch whether a run can be planned on its own data or on assumptions in place of it."""

from __future__ import annotations

from glob import glob

from matey.config import ConfigError, RunConfig
from matey.data.remote import RemotePath, place
from matey.train.command import check_data


def check_can_be_planned(run: RunConfig, *, is_assumed: bool) -> None:
    """Raise a mistake if the data holds no files or, for absent or assumed data, if the run names no fields."""
    if is_assumed or not is_at_hand(run):
        check_named(run)
    else:
        check_data(run)


def check_named(run: RunConfig) -> None:
    """Raise ConfigError if a run names no fields; without its data they are unknown."""
    if run.model.fields is None:
        raise ConfigError(
            "The data of this run does not exist, so its fields must be named: set model.fields, for instance "
            "--set 'model.fields=[density, pressure]'."
        )


def is_at_hand(run: RunConfig) -> bool:
    """Whether each of the run's data sets has a file or folder; remote data counts as there until it is read."""
    return all(isinstance(place(data.path), RemotePath) or glob(data.path) for data in run.data.sets)
