"""Loads a checkpoint into the engine: DeepSpeed's as it is, where ranks and ZeRO stage are the same, or a universal one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matey.checkpoints.find import open_checkpoint
from matey.checkpoints.shards import ShardError
from matey.checkpoints.source import AVERAGE, Source, layout_of
from matey.checkpoints.universal import UniversalReader
from matey.parallel.average import MovingAverage
from matey.parallel.collectives import from_rank_zero, rank, world_size
from matey.parallel.engine import Engine
from matey.parallel.master import set_frozen, set_whole


class RunError(ValueError):
    """A run that cannot start, go on or be saved: one sentence that says what to do."""


def load_checkpoint(engine: Engine, folder: Path, average: MovingAverage) -> dict[str, Any]:
    """Load the checkpoint in a folder ``step_*`` and return the state saved with it. All ranks must call.

    Raises:
        RunError: it is damaged, or was saved by other ranks or another ZeRO stage and is not universal.
    """
    is_universal, trouble = from_rank_zero(_look(engine, folder) if rank() == 0 else None)
    if trouble:
        raise RunError(trouble)
    if is_universal:
        return _load_universal(engine, folder, average)
    try:
        path, state = engine.load_checkpoint(str(folder.parent), tag=folder.name)
        average.load(folder)
    except (OSError, RuntimeError, EOFError, KeyError) as error:
        raise RunError(
            f"The checkpoint {folder} cannot be loaded ({first_line(error)}); name an older one in {folder.parent / 'latest'}."
        ) from error
    assert path is not None, "what DeepSpeed looks for was seen to be there"
    return state


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message."""
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def _look(engine: Engine, folder: Path) -> tuple[bool, str]:
    """Return whether a checkpoint is universal, and what speaks against loading it."""
    try:
        source = open_checkpoint(folder)
    except ShardError as error:
        return False, f"{error} An older one can be named in {folder.parent / 'latest'}."
    if missing := [path for path in source.files() if not path.is_file()]:
        return False, (
            f"{missing[0]} is missing ({len(missing)} of {len(source.files())} files are); copy it again, or name an older "
            f"checkpoint in {folder.parent / 'latest'}."
        )
    if source.stage is None:
        return True, ""
    layout = layout_of(engine.zero_optimization_stage(), hasattr(engine.optimizer, "bf16_groups"))
    is_alike = (source.num_ranks, source.layout) == (world_size(), layout)
    return False, "" if is_alike else _convert_first(source, layout)


def _convert_first(source: Source, layout: str) -> str:
    run = source.folder.parent.parent
    new = run.with_name(f"{run.name}_universal")
    return (
        f"{source.folder} was saved by {source.num_ranks} ranks {source.layout}, and this run has {world_size()} ranks "
        f"{layout}. Convert it with `python tools/convert_checkpoint.py {run} --to universal --out {new}` and go on with "
        f"--resume --set output.dir={new}."
    )


def _load_universal(engine: Engine, folder: Path, average: MovingAverage) -> dict[str, Any]:
    try:
        reader = UniversalReader(folder)
        set_whole(engine, reader.read, reader.common["global_steps"])
        set_frozen(engine, reader.common["module"])
        average.set_whole((lambda name: reader.read(AVERAGE, name)) if reader.has_average else None)
    except ShardError as error:
        raise RunError(f"{error} The checkpoint can be converted again.") from None
    return reader.common
