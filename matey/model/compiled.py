"""Has the MLPs of the blocks compiled by `torch.compile`, where a run asks for it.

They are most of what a block computes, token by token, so that one compilation serves any number of tokens and all blocks.
Attention is a call of a kernel already, and the local operator's passes over the cells, compiled, take 1.1 to 1.2 times as long
on a CPU (docs/performance.md).
"""

from __future__ import annotations

import torch
from torch import Tensor

from matey.config import ConfigError
from matey.mistakes import one_line
from matey.model.matey import MateyModel


def compile_blocks(model: MateyModel, device: torch.device | str) -> None:
    """Have the MLPs of a model compiled at their first call; names of weights and what they are saved as stay the same.

    Args:
        model: the model, with its adapters if it has any.
        device: the device on which it will be trained.

    Raises:
        ConfigError: nothing can be compiled here.
    """
    from torch._inductor import config  # no other run pays for the import

    # Else each rank would start a process for each core of its node, to compile one function.
    config.compile_threads = 1
    try:
        torch.compile(_negative)(torch.zeros(2, device=device))
    except RuntimeError as error:
        raise ConfigError(
            f"train.compile needs a compiler that works here, and got: {one_line(error)}; install one (g++, or what CXX names; "
            "for GPUs the package triton as well), or set train.compile to false."
        ) from error
    for block in model.blocks:
        # Its `forward` alone: hooks, by which ZeRO brings weights and takes gradients, are called around it as ever.
        block.mlp.forward = torch.compile(block.mlp.forward, dynamic=True)  # type: ignore[method-assign]
    model.is_compiled = True


def _negative(values: Tensor) -> Tensor:
    return -values
