"""Finds the checkpoint that a user means: a run's newest one, or a folder of one step."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from matey.checkpoints.newest import ShardError, first_file, step_folder
from matey.checkpoints.run_files import CONFIG, OWNER
from matey.checkpoints.shards import laid_out, open_shard
from matey.checkpoints.source import Source
from matey.mistakes import regular

MAX_RANKS = 2**20  # more than any machine has
WRITTEN: dict[str, type | tuple[type, ...]] = {
    "zero_stage": int,
    "global_steps": int,
    "dp_world_size": int,
    "param_shapes": (list, type(None)),
    "ds_version": str,
    "versions": dict,
}
"""Names and types of the facts that every checkpoint holds about itself."""


def find_checkpoint(path: Path) -> tuple[Source, Path | None]:
    """Open the checkpoint of a run folder (its newest), of its ``checkpoints/``, or of a folder of one step.

    Returns:
        the checkpoint, and the folder of its run; None for a checkpoint outside a run.

    Raises:
        ShardError: there is no checkpoint, or the file that describes it is missing or corrupt.
    """
    folder = step_folder(path)
    return open_checkpoint(folder), next((run for run in _runs(folder) if (run / CONFIG).is_file()), None)


def _runs(folder: Path) -> Iterator[Path]:
    """Yield the folders in which the run of a checkpoint may be; its ``checkpoints`` may be a link to a folder elsewhere."""
    yield from (Path(os.path.abspath(folder)).parent.parent, folder.resolve().parent.parent)
    with suppress(OSError, ValueError):
        yield Path(regular(folder.resolve().parent / OWNER).read_text(encoding="utf-8").strip())


def open_checkpoint(folder: Path) -> Source:
    """Open the checkpoint in a folder of one step, in any form."""
    path = first_file(folder)
    common = open_shard(path)
    if not isinstance(common, dict) or "zero_stage" not in common:
        raise ShardError(f"{path} was not written by this version of MATEY; resume the run and save it again.")
    for key, kinds in WRITTEN.items():
        if not isinstance(common.get(key), kinds):
            raise ShardError(
                f"{path} has {str(common.get(key))[:80]!r} as {key}, which no run writes; copy it again, or take an "
                "older checkpoint."
            )
    if not (0 <= common["zero_stage"] <= 3 and 1 <= common["dp_world_size"] <= MAX_RANKS):
        raise ShardError(
            f"{path} says that {common['dp_world_size']} ranks with ZeRO {common['zero_stage']} wrote it, which is not "
            "possible; copy it again, or take an older checkpoint."
        )
    with laid_out(path):
        is_mixed = common.get("ds_config", {}).get("zero_optimization", {}).get("round_robin_gradients", False)
    if is_mixed and common["zero_stage"] in (1, 2) and common["dp_world_size"] > 1:
        raise ShardError(
            f"{folder} was saved with zero_optimization.round_robin_gradients, with which DeepSpeed mixes up the names of "
            "weights; train again without it."
        )
    return Source(folder, None if (folder / "zero").is_dir() else common["zero_stage"], common)
