"""The universal form: whole parameters and moments, from which any ranks, ZeRO stage and sequence groups can go on.

The layout is DeepSpeed's own, ``zero/<parameter>/{fp32,exp_avg,exp_avg_sq,step}.pt``, with ``ema/<parameter>.pt`` beside it.
DeepSpeed's converter is not used: it has no way from ZeRO 0, unpickles whatever the files hold, and knows no average.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from matey.checkpoints.shards import ShardError, open_shard
from matey.checkpoints.source import AVERAGE, MODEL_STATES, MOMENTS, WEIGHTS, Source, universal_file


def write_universal(source: Source, folder: Path) -> None:
    """Write a checkpoint in universal form, a quantity after the other, so that one copy of the weights is held at a time.

    Raises:
        ShardError: the checkpoint is universal already, or cannot be read.
    """
    if source.stage is None:
        raise ShardError(f"{source.folder} is universal already; resume it as it is.")
    quantities = (WEIGHTS, *MOMENTS, *((AVERAGE,) if source.has_average else ()))
    for what in quantities:
        for name, values in source.whole(what).items():
            path = universal_file(folder, what, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.save({"param": values}, path)
    for name in source.shapes:
        torch.save(torch.tensor(float(source.step)), folder / "zero" / name / "step.pt")
    about = {"param_groups": source.param_groups(), "ds_version": source.common["ds_version"]}
    torch.save(about, folder / "zero" / "optimizer_state.pt")
    common = {
        **source.common,
        "module": source.frozen(),
        "param_shapes": source.common["param_shapes"] or [source.shapes],
        "optimizer": None,
        "frozen_param_fragments": None,
        "saved_stage": source.stage,
    }
    torch.save(common, folder / MODEL_STATES)


class UniversalReader:
    """Reads single parameters of a universal checkpoint, of which a rank takes its part."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.common: dict[str, Any] = open_shard(folder / MODEL_STATES)
        self.has_average = (folder / AVERAGE).is_dir()

    def read(self, what: str, name: str) -> Tensor:
        """Return ``fp32``, ``exp_avg``, ``exp_avg_sq`` or ``ema`` of a parameter.

        Raises:
            ShardError: its file is missing or damaged.
        """
        return open_shard(universal_file(self._folder, what, name))["param"]
