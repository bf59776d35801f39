"""Whether a run can be planned on its own data or on assumptions in its place, told without PyTorch."""

from __future__ import annotations

from glob import glob

from matey.config import ConfigError, RunConfig
from matey.data.remote.paths import RemotePath, place
from matey.train.beforehand import check_data


def check_can_be_planned(run: RunConfig, *, is_assumed: bool) -> None:
    """Raise a mistake where the data holds no files or, if it is not there or others are assumed, its fields have no names."""
    if is_assumed or not is_at_hand(run):
        check_named(run)
    else:
        check_data(run)


def check_named(run: RunConfig) -> None:
    """Raise ConfigError if a run names no fields: without its data they are not known."""
    if run.model.fields is None:
        raise ConfigError(
            "The data of this run does not exist, so its fields must be named: set model.fields, for instance "
            "--set 'model.fields=[density, pressure]'."
        )


def is_at_hand(run: RunConfig) -> bool:
    """Whether there is a file or folder for each of the run's data sets; of what is elsewhere, reading says if there is not."""
    return all(isinstance(place(data.path), RemotePath) or glob(data.path) for data in run.data.sets)
