"""Loads a checkpoint into the engine: DeepSpeed's, for the same ranks and ZeRO stage, or a universal one, for any.

The settings that a resumed run must keep are defined here too.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from pickle import UnpicklingError
from shlex import quote
from typing import Any

from safetensors import SafetensorError

from matey.checkpoints.describe import find_damage
from matey.checkpoints.find import open_checkpoint
from matey.checkpoints.newest import ShardError
from matey.checkpoints.run_files import CONFIG, LATEST
from matey.checkpoints.source import AVERAGE, Source, layout_of
from matey.config import RunConfig, load_config
from matey.config.flags import started_as
from matey.mistakes import Mistake, one_line
from matey.parallel.collectives import rank, world_size
from matey.parallel.failure import lost_contact
from matey.parallel.loading import load_deepspeed
from matey.parallel.master import set_frozen, set_whole
from matey.parallel.package import Engine
from matey.train.average import MovingAverage

# Settings that a resumed run must keep: whole sections where no keys are named, else these keys.
KEPT = dict(model=(), tokens=(), finetune=(), data=("history",), train=("optimizer", "groups", "layer_decay"))


class RunError(Mistake):
    """A run that cannot start, go on or be saved: one sentence that says what to do."""


def check_kept(folder: Path, run: RunConfig) -> None:
    """Raise RunError if a folder's run has another model, tokenizer or history, or trains other parts or at other rates."""
    saved = load_config(folder / CONFIG)
    for section, keys in KEPT.items():
        before, now = (dict(getattr(config, section) or {}) for config in (saved, run))
        for key in keys or {**before, **now}:
            if before.get(key) != now.get(key):
                raise RunError(
                    f"{folder} holds a run with {section}.{key} = {before.get(key)}, this one asks for {now.get(key)}; "
                    "use the same, or another output.dir."
                )


def load_checkpoint(engine: Engine, folder: Path, average: MovingAverage) -> dict[str, Any]:
    """Load the checkpoint in a folder ``step_*`` and return the state saved with it. All ranks must call.

    Raises:
        RunError: the checkpoint is corrupt, has other groups of parameters, or is of other ranks or another ZeRO stage and
            not universal.
    """
    older = f"an older one can be named in {folder.parent / LATEST}."
    try:
        source = open_checkpoint(folder)
        layout = layout_of(engine.zero_optimization_stage(), hasattr(engine.optimizer, "bf16_groups"))
        if source.stage is not None and (source.num_ranks, source.layout) != (world_size(), layout):
            raise RunError(_convert_first(source, layout))
        # DeepSpeed would not name a corrupt file, and would accept a file of another step or with changed bytes.
        if damage := find_damage(source, source.files()[rank() :: world_size()]):
            raise RunError(f"{damage[0]} Or {older}")
        if source.stage is None:
            return _load_universal(engine, source, average)
        state = load_deepspeed(engine, folder)
        average.load(folder)
    except ShardError as error:
        raise RunError(f"{error} Or {older}") from None
    except RunError:
        raise
    except (OSError, RuntimeError, EOFError, KeyError, ValueError, UnpicklingError, SafetensorError) as error:
        let_lost_contact_through(error)
        raise RunError(f"The checkpoint {folder} cannot be loaded ({one_line(error)}); {older}") from error
    return state


def let_lost_contact_through(error: Exception) -> None:
    """Raise an error again if another rank's end caused it: no file is at fault, and the end of the process explains it."""
    if lost_contact(error, error.__traceback__) is not None:
        raise error


def _convert_first(source: Source, layout: str) -> str:
    run = source.folder.parent.parent
    new = run.with_name(f"{run.name}_universal")
    convert = started_as("tools/convert_checkpoint.py", "convert")
    return (
        f"{source.folder} was saved by {source.num_ranks} ranks {source.layout}, and this run has {world_size()} ranks "
        f"{layout}. Convert it with `{convert} {quote(str(run))} --to universal --out {quote(str(new))}` and go on "
        f"with --resume --set output.dir={quote(str(new))}."
    )


def _load_universal(engine: Engine, source: Source, average: MovingAverage) -> dict[str, Any]:
    """Read this rank's part of every parameter, one parameter at a time; return the state that all ranks share."""
    set_whole(engine, source.parameter, source.step)
    set_frozen(engine, source.common["module"])
    average.set_whole(partial(source.parameter, AVERAGE) if source.has_average else None)
    return source.common
