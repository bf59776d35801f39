"""The universal form: whole parameters and moments, which any number of ranks and any ZeRO stage can resume.

The layout is DeepSpeed's own, ``zero/<parameter>/{fp32,exp_avg,exp_avg_sq,step}.pt``, with ``ema/<parameter>.pt`` beside it.
DeepSpeed's converter is not used: it has no way from ZeRO 0, unpickles whatever the files hold, and knows no average.
"""

from __future__ import annotations

from pathlib import Path

import torch

from matey.checkpoints.newest import MODEL_STATES, ShardError
from matey.checkpoints.source import AVERAGE, MOMENTS, WEIGHTS, Source, universal_file


def write_universal(source: Source, folder: Path) -> None:
    """Write a checkpoint in universal form, a quantity after the other, so that one copy of the weights is held at a time.

    Raises:
        ShardError: the checkpoint is universal already, or cannot be read.
    """
    if source.stage is None:
        raise ShardError(f"{source.folder} is universal already; resume it as it is.")
    quantities = (WEIGHTS, *MOMENTS, *((AVERAGE,) if source.has_average else ()))
    for what in quantities:
        _write_quantity(source, folder, what)
    for name in source.shapes:
        torch.save(torch.tensor(float(source.step)), universal_file(folder, "step", name))
    about = {"param_groups": source.param_groups(), "ds_version": source.common["ds_version"]}
    torch.save(about, folder / "zero" / "optimizer_state.pt")
    common = {
        **source.common,
        "module": source.frozen(),
        "param_shapes": source.common["param_shapes"] or [source.shapes],
        "optimizer": None,
        "frozen_param_fragments": None,
    }
    torch.save(common, folder / MODEL_STATES)


def _write_quantity(source: Source, folder: Path, what: str) -> None:
    for name, values in source.whole(what).items():
        path = universal_file(folder, what, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save({"param": values}, path)
