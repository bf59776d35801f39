"""The commands that train; the command line and its files are checked before PyTorch and DeepSpeed, which take seconds.

A run needs both files, a model to start from, data, and a folder that can be written. Settings are the same for all ranks.
Rank 0 checks the disks for all; tasks of srun do so once they are connected.
"""

from __future__ import annotations

import argparse
import difflib
import json
import os
import re
import sys
from collections.abc import Callable, Sequence
from itertools import starmap
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from matey.checkpoints.run_files import CONFIG, is_run
from matey.config import ConfigError, RunConfig, load_config, load_deepspeed_config, source_of
from matey.config.flags import RanksParser, take_local_rank
from matey.config.schema import FINETUNE_MODES
from matey.process.launchers import likely_place, looks_for_all
from matey.process.signals import EXIT_CODE
from matey.process.start import entry_point, hold, keep_freed_memory
from matey.train.folder import cannot_write, check_folder, is_done


@entry_point
def pretrain() -> int:
    """Pretrain one model on many PDE systems, with the exit codes of `run_training`."""
    hold()  # before the imports that take seconds
    usage = "Pretrain one model on many PDE systems: `deepspeed --module matey pretrain --deepspeed_config JSON --config YAML`."
    args = training_parser(usage).parse_args()
    run, deepspeed_config = read_settings(args, check_no_source)
    from matey.train.run import pretrain

    return run_training(pretrain, run, deepspeed_config, only_describe=args.describe)


@entry_point
def finetune() -> int:
    """Fine-tune a trained model, with the same exit codes."""
    hold()
    flags = "--deepspeed_config JSON --config YAML --pretrained RUN_OR_MODEL"
    parser = training_parser(f"Fine-tune a trained model: `deepspeed --module matey finetune {flags}`.")
    source = "folder of a run or a model, or none: random initial weights"
    parser.add_argument("--pretrained", dest="finetune.pretrained", metavar="RUN_OR_MODEL", help=source)
    modes = f"parts that are trained: {', '.join(FINETUNE_MODES.own)}, or a package's"
    parser.add_argument("--train", dest="finetune.train", metavar="MODE", help=modes)
    number = "train on the first N trajectories of a fixed order"
    parser.add_argument("--trajectories", dest="data.trajectories", type=int, metavar="N", help=number)
    args = parser.parse_args()
    settings = [f"{key}={json.dumps(value)}" for key, value in vars(args).items() if "." in key and value is not None]
    run, deepspeed_config = read_settings(args, source_of, settings)
    from matey.train.finetune import finetune

    return run_training(finetune, run, deepspeed_config, only_describe=args.describe)


def training_parser(description: str) -> argparse.ArgumentParser:
    """Return a parser with the flags of every training run."""
    parser = RanksParser(description=description, allow_abbrev=False)
    add = parser.add_argument
    add("--deepspeed_config", required=True, help="JSON of the DeepSpeed engine, see ds_configs/")
    add("--config", required=True, help="YAML of the run, see launch/runs/")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="override a value, such as train.steps=200")
    add("--resume", action="store_true", help="continue from the newest checkpoint in output.dir")
    add("--describe", action="store_true", help="say what would be done, and stop")
    add("--is_done", action="store_true", help="say whether all steps are done, by the exit code 0 or 75, and stop")
    take_local_rank(parser)
    return parser


def read_settings(
    args: argparse.Namespace, check: Callable[[RunConfig], object], overrides: Sequence[str] = ()
) -> tuple[RunConfig, dict[str, Any]]:
    """Return the run and the DeepSpeed configuration that the command line asks for.

    Args:
        args: the arguments, as parsed by `training_parser`.
        check: function that raises ConfigError for a run that the command does not take.
        overrides: KEY=VALUE settings from other flags; they are applied after those of ``--set``.

    Raises:
        Mistake: they are wrong, or a file of them is not there.
    """
    run = load_config(args.config, [*args.set, *overrides])
    deepspeed_config = load_deepspeed_config(args.deepspeed_config)
    check(run)
    if args.is_done:
        sys.exit(0 if is_done(Path(run.output.dir), run.train.steps) else EXIT_CODE)
    if looks_for_all():
        check_disks(run, only_describe=args.describe)
    if args.resume:
        if looks_for_all() and (meant := mistyped(Path(run.output.dir))):
            raise ConfigError(
                f"--resume: there is no folder {run.output.dir}; did you mean the run {meant}? To start a new run there, leave "
                "--resume out, or make the folder first."
            )
        run = run.model_copy(update={"output": run.output.model_copy(update={"resume": "auto"})})
    return run, deepspeed_config


def mistyped(folder: Path) -> Path | None:
    """Return the run whose name a missing folder has but for letters that are swapped, or one that is left out or too many.

    Job scripts give ``--resume`` at the first start as well, beside runs of like names, such as ``seed_1`` and ``seed_2``, or
    ``vit`` and ``svit``: a slip is a word of the same letters in another order, or a long one that begins and ends alike.
    """
    if folder.exists() or not folder.parent.is_dir():
        return None

    def is_slip(word: str, other: str) -> bool:
        if not (word.isalpha() and other.isalpha()):
            return False
        ends_alike = word[0] + word[-1] == other[0] + other[-1]
        near = min(len(word), len(other)) >= 5 and difflib.SequenceMatcher(None, word, other).ratio() > 0.9
        return (len(word) >= 3 and sorted(word) == sorted(other)) or (ends_alike and near)

    for run in folder.parent.iterdir():
        words, others = (re.split(r"([\W\d_]+)", name) for name in (folder.name, run.name))
        differ = [pair for pair in zip(words, others, strict=False) if pair[0] != pair[1]]
        if len(words) == len(others) and differ and all(starmap(is_slip, differ)) and (run / CONFIG).is_file():
            return run
    return None


def check_no_source(run: RunConfig) -> None:
    """Raise ConfigError if a run that pretrains has settings of fine-tuning."""
    if run.finetune is not None:
        raise ConfigError("The run YAML has a section 'finetune': start it with `matey finetune`, or remove that.")


def check_disks(run: RunConfig, *, only_describe: bool) -> None:
    """Check that the files that the run reads exist, and that it may write to its folder, which is not touched.

    Args:
        run: the run.
        only_describe: whether the run writes nothing, so that its folder need not be writable.

    Raises:
        CheckpointError: the folder to start from is not that of a run or a model.
        ConfigError: the run's own folder cannot be used.
        DataError: there are no files of a data set.
    """
    if run.finetune is not None and (source := source_of(run)) is not None:
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


def run_training(
    train: Callable[..., bool], run: RunConfig, deepspeed_config: dict[str, Any], *, only_describe: bool
) -> int:
    """Start the processes, train by `matey.train.run.pretrain` or `matey.train.finetune.finetune`, and return the exit code.

    Returns:
        Exit code: 0 if training is done; 75 if a signal asked the run to stop and it saved a whole checkpoint. After 75, the
        same command with ``--resume`` continues.

    Raises:
        Mistake: this rank has met it.
    """
    from matey.parallel.environment import find_environment, start_processes, stop_processes
    from matey.parallel.failure import name_failures

    name_failures(*likely_place())
    environment = find_environment()
    start_processes(environment, run.parallel.timeout, run.parallel.threads, can_save=True)
    if environment.device.type == "cpu":
        keep_freed_memory()
    tell = (lambda line: print(line, flush=True)) if environment.rank == 0 else lambda line: None
    tell(f"Started: {environment}")
    is_done = train(run, deepspeed_config, tell, only_describe=only_describe)
    return stop_processes(0 if is_done else EXIT_CODE)
