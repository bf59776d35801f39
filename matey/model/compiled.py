"""Has the MLPs of the blocks compiled by `torch.compile`, where a run asks for it.

MLPs are most of a block's computation and act token by token, so one compilation serves any number of tokens and all blocks.
Attention is one kernel call already, and layers on the cells are PyTorch's convolutions.
"""

from __future__ import annotations

import torch
from torch import Tensor

from matey.config import ConfigError
from matey.mistakes import one_line
from matey.model.matey import MateyModel


def compile_blocks(model: MateyModel, device: torch.device | str) -> None:
    """Have the MLPs of a model compiled at their first call; the names and the saved form of weights stay the same.

    Args:
        model: the model, with its adapters if it has any.
        device: the device on which it will be trained.

    Raises:
        ConfigError: nothing can be compiled here.
    """
    from torch._inductor import config  # here, so that no other run pays for the import

    # Otherwise each rank would start a process for each core of its node to compile one function.
    config.compile_threads = 1
    try:
        torch.compile(_negative)(torch.zeros(2, device=device))
    except RuntimeError as error:
        raise ConfigError(
            f"train.compile needs a compiler that works here, and got: {one_line(error)}; install one (g++, or what CXX names; "
            "for GPUs the package triton as well), or set train.compile to false."
        ) from error
    for block in model.blocks:
        # Only `forward`: the hooks by which ZeRO gathers weights and collects gradients still run around it.
        block.mlp.forward = torch.compile(block.mlp.forward, dynamic=True)  # type: ignore[method-assign]
    model.is_compiled = True


def _negative(values: Tensor) -> Tensor:
    return -values
