"""Estimates the cost of a run on a machine before node hours are spent: tokens, memory, communication and time."""

from __future__ import annotations

from glob import glob

from matey.config import ConfigError, RunConfig
from matey.data.remote import RemotePath, place


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
