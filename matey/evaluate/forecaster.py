"""The interface of a model in an evaluation, MATEY or one of its peers."""

from __future__ import annotations

from typing import Protocol, TypeGuard

import torch
from torch import Tensor

from matey.fields import FieldBatch
from matey.model.matey import MateyModel
from matey.tokens.layout import TokenLayout
from matey.tokens.patches import Patch


class Forecaster(Protocol):
    """A model that predicts frames: a `MateyModel`, or one of its peers."""

    @property
    def device(self) -> torch.device:
        """The device of the model's weights."""

    def predict(self, batch: FieldBatch) -> Tensor:
        """Return the frame ``(b, f, z, y, x)`` at the batch's lead times, in physical units."""


def has_tokens(model: Forecaster) -> TypeGuard[MateyModel]:
    """Return whether a model has tokens; peers and the network `cells` have none."""
    return isinstance(model, MateyModel) and model.config.has_tokens


def patches_of(model: Forecaster) -> tuple[Patch, ...]:
    """Return the sizes ``[t, z, y, x]`` of a model's patches, coarse to fine; none of a model without tokens."""
    return tuple(model.config.patches) if has_tokens(model) else ()


def num_sharing(model: Forecaster) -> int:
    """Return the number of ranks that forecast together, each with a part of the fields."""
    return model.sequence_group.size if isinstance(model, MateyModel) else 1


def predict_with_tokens(model: Forecaster, batch: FieldBatch) -> tuple[Tensor, TokenLayout | None]:
    """Return the predicted frame ``(b, f, z, y, x)`` on the CPU, and the tokens of the batch, if the model has any."""
    if not has_tokens(model):
        return model.predict(batch).cpu(), None
    tokens = model.tokens_of(batch)
    return model.predict(batch, tokens).cpu(), tokens.layout
