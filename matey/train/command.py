"""The command line that pretraining and fine-tuning share, read and checked before PyTorch is imported.

A run needs both files, a model to start from, data, and a folder that can be written. Settings are the same for all ranks.
Rank 0 checks the disks for all; tasks of srun do so once they are connected.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from matey.checkpoints.run_files import CONFIG, CheckpointError, is_run
from matey.config import ConfigError, RunConfig, load_config, load_deepspeed_config
from matey.config.flags import RanksParser, started_as, take_local_rank
from matey.mistakes import Mistake
from matey.process.ending import end_with_error
from matey.process.launchers import likely_place, looks_for_all
from matey.train.folder import cannot_write, check_folder, is_done


def training_parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser with the flags of every training run."""
    parser = RanksParser(description=description)
    parser.add_argument("--deepspeed_config", required=True, help="JSON of the DeepSpeed engine, see ds_configs/")
    parser.add_argument("--config", required=True, help="YAML of the run, see launch/runs/")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override a value, such as train.steps=200"
    )
    parser.add_argument("--resume", action="store_true", help="continue from the newest checkpoint in output.dir")
    parser.add_argument("--describe", action="store_true", help="say what would be done, and stop")
    parser.add_argument(
        "--is_done", action="store_true", help="say whether all steps are done, by the exit code 0 or 75, and stop"
    )
    take_local_rank(parser)
    return parser


def read_settings(
    args: argparse.Namespace, check: Callable[[RunConfig], object], overrides: Sequence[str] = ()
) -> tuple[RunConfig, dict[str, Any]]:
    """Return the run and the DeepSpeed configuration that the command line asks for; end with a sentence if they are wrong.

    Args:
        args: the arguments, as parsed by `training_parser`.
        check: function that raises ConfigError for a run that the command does not take.
        overrides: KEY=VALUE settings from other flags; they are applied after those of ``--set``.
    """
    try:
        run = load_config(args.config, [*args.set, *overrides])
        deepspeed_config = load_deepspeed_config(args.deepspeed_config)
        check(run)
        if args.is_done:
            sys.exit(0 if is_done(Path(run.output.dir), run.train.steps) else os.EX_TEMPFAIL)
        if looks_for_all():
            check_disks(run, only_describe=args.describe)
    except Mistake as error:
        sys.exit(end_with_error(*likely_place(), f"error: {error}"))
    if args.resume:
        run = run.model_copy(update={"output": run.output.model_copy(update={"resume": "auto"})})
    return run, deepspeed_config


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
