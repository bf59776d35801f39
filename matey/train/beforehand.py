"""Checks the needs of a run before PyTorch is imported: a model to start from, data, a folder that can be written.

Settings are the same for all ranks. Rank 0 checks the disks for all; tasks of srun do so once they are connected.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile

from matey.checkpoints.run_files import CONFIG
from matey.checkpoints.trained_folder import CheckpointError, is_run
from matey.config import ConfigError, RunConfig
from matey.config.flags import started_as
from matey.train.own_folder import cannot_write, check_folder

RANDOM = "none"


def check_no_source(run: RunConfig) -> None:
    """Raise ConfigError if a run that pretrains has settings of fine-tuning."""
    if run.finetune is not None:
        finetune = started_as("launch/finetune.py", "finetune")
        raise ConfigError(f"The run YAML has a section 'finetune': start it with `{finetune}`, or remove that.")


def named_source(run: RunConfig) -> str | None:
    """Return the run or model to start from; None for random weights.

    Raises:
        ConfigError: no source is named, or random weights are asked for without the settings of the network.
    """
    if run.finetune is None or run.finetune.pretrained is None:
        raise ConfigError(
            "Name the run or model to start from: --pretrained RUN_OR_MODEL, or --pretrained none for random weights "
            "(finetune.pretrained in the run YAML)."
        )
    if run.finetune.pretrained != RANDOM:
        return run.finetune.pretrained
    for section, keys in (("model", ("size", "scheme")), ("tokens", ("set", "patches"))):
        for key in keys:
            if key not in getattr(run, section).model_fields_set:
                raise ConfigError(
                    "With --pretrained none there is no model to take the network from: the run YAML has to state "
                    f"{section}.{key}; the {CONFIG} of a run from a pretrained model states all, its vocabulary too."
                )
    return None


@contextmanager
def reading_source() -> Iterator[None]:
    """Turn an error in the folder of a trained model into a mistake in the flag that names it."""
    try:
        yield
    except CheckpointError as error:
        raise ConfigError(f"--pretrained: {error}") from None


def check_disks(run: RunConfig, *, only_describe: bool) -> None:
    """Check that the files that the run reads exist, and that it may write to its folder, which is not touched.

    Args:
        run: the run.
        only_describe: whether the run writes nothing, so that its folder need not be writable.

    Raises:
        ConfigError: the folder to start from is not that of a run or a model, or the run's own folder cannot be used.
        DataError: there are no files of a data set.
    """
    if run.finetune is not None and (source := named_source(run)) is not None:
        with reading_source():
            is_run(Path(source))
    check_data(run)
    if not only_describe:
        folder = Path(run.output.dir)
        there = next(path for path in (folder.absolute(), *folder.absolute().parents) if os.path.exists(path))
        try:
            check_folder(folder)
            TemporaryFile(dir=there).close()
        except OSError as error:
            raise ConfigError(cannot_write(folder, error)) from None


def check_data(run: RunConfig) -> None:
    """Raise DataError if there are no files of one of the run's data sets."""
    from matey.data.registry import check_found  # takes a fifth of a second, which a wrong flag need not wait for

    for data in run.data.sets:
        check_found(data.path, data.description)
    for path in run.data.validate_on:
        check_found(path)
