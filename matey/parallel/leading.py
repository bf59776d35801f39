"""Forecasts by a group of ranks: rank 0 runs the program, and the others compute along whenever it predicts.

All share the tokens of each sample. What rank 0 does between two predictions, such as reading and writing, it does alone.
"""

from __future__ import annotations

import torch
from torch import Tensor

from matey.fields import FieldBatch
from matey.model.matey import MateyModel
from matey.parallel.collectives import from_rank_zero
from matey.parallel.environment import Environment
from matey.parallel.sequence import DistributedSequenceGroup
from matey.parallel.topology import Topology
from matey.tokens.tokenize import TokenBatch


def share_tokens(model: MateyModel, environment: Environment) -> MateyModel:
    """Return a model, moved to this rank's device, whose tokens all ranks share; they must all call."""
    size = environment.world_size
    model.sequence_group = DistributedSequenceGroup(
        Topology(environment.rank, size, size, model.config.num_heads), model.sequence_group.backend
    )
    return model.to(environment.device)


def lead(model: MateyModel) -> None:
    """Let each prediction of rank 0 take the others along, which `follow`."""
    predict = model.predict

    def together(batch: FieldBatch, token_batch: TokenBatch | None = None) -> Tensor:
        from_rank_zero(batch.to(torch.device("cpu")))
        return predict(batch, token_batch)

    model.predict = together  # type: ignore[method-assign]


def follow(model: MateyModel) -> None:
    """Predict what rank 0 predicts, until it says that nothing follows."""
    none: FieldBatch | None = None
    while (batch := from_rank_zero(none)) is not None:
        model.predict(batch)


def dismiss() -> None:
    """Say, on rank 0, that nothing follows."""
    from_rank_zero(None)
