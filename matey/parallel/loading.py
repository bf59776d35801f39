"""Loads DeepSpeed's own checkpoints without running code that their pickles may ask for."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from matey.parallel.package import Engine, deepspeed

# DeepSpeed lets PyTorch run any code in the files. PyTorch's first variable overrules that; the second, which a site or a user
# may have set, does the opposite. With both, PyTorch refuses to load anything.
ONLY_WEIGHTS, ANYTHING = "TORCH_FORCE_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"
FROM_CONFIGURATION = frozenset({"weight_decay", "betas", "eps", "factor", "momentum"})
"""Settings of a group of parameters that come from the run's configuration; its rate is set in every step."""
CLIP_NORM = "clip_grad"  # as DeepSpeed's optimizers call it; without one, the engine clips as it is configured


def load_deepspeed(engine: Engine, folder: Path) -> dict[str, Any]:
    """Load the checkpoint in a folder ``step_*`` into the engine and return the state saved with it. All ranks must call.

    Raises:
        UnpicklingError: a file holds an object of another class.
    """
    groups, clip_norm = engine.optimizer.param_groups, getattr(engine.optimizer, CLIP_NORM, None)
    settings = [{key: group[key] for key in group.keys() & FROM_CONFIGURATION} for group in groups]
    with _only_weights(), torch.serialization.safe_globals(_classes()):
        path, state = engine.load_checkpoint(str(folder.parent), tag=folder.name)
    assert path is not None, "the files were seen to be there"
    # DeepSpeed overwrites the settings with the checkpoint's, but the configuration may have changed since.
    for group, of_group in zip(engine.optimizer.param_groups, settings, strict=True):
        group.update(of_group)
    if clip_norm is not None:
        setattr(engine.optimizer, CLIP_NORM, clip_norm)
    return state


def _classes() -> list[Any]:
    """Return all classes in the files of DeepSpeed 0.19 that are neither tensors nor plain Python."""
    deepspeed()
    from deepspeed.runtime.fp16.loss_scaler import LossScaler
    from deepspeed.runtime.zero.config import ZeroStageEnum
    from deepspeed.utils.tensor_fragment import fragment_address

    return [LossScaler, ZeroStageEnum, fragment_address]


@contextmanager
def _only_weights() -> Iterator[None]:
    before = {name: os.environ.pop(name) for name in (ONLY_WEIGHTS, ANYTHING) if name in os.environ}
    os.environ[ONLY_WEIGHTS] = "1"
    try:
        yield
    finally:
        os.environ.pop(ONLY_WEIGHTS)
        os.environ.update(before)
