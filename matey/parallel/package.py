"""DeepSpeed, imported on first use: importing a module of ours does not choose an accelerator."""

from __future__ import annotations

import os
from functools import cache
from typing import Any, TypeAlias

import torch

ACCELERATOR = "DS_ACCELERATOR"

Engine: TypeAlias = Any
"""A ``deepspeed.DeepSpeedEngine``, which has no types of its own."""


@cache
def deepspeed() -> Any:  # noqa: ANN401
    """Return the package ``deepspeed``.

    Its import searches for an accelerator, which takes seconds and prints, unless a variable names one. PyTorch knows the
    accelerator already. The variable is removed again: jobs that this process starts may run on machines with other devices.
    """
    is_chosen = ACCELERATOR in os.environ
    if not is_chosen:
        os.environ[ACCELERATOR] = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        import deepspeed
    finally:
        if not is_chosen:
            del os.environ[ACCELERATOR]
    return deepspeed
