"""Registries of the things that the run YAML chooses by name, to which a user's package can add (docs/extending.md).

The names are known here without importing the things themselves, which lie in packages above this one and need PyTorch.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator

from matey.registry import Registry

SCHEMES: Registry[Any] = Registry(
    "attention scheme",
    "matey.attention_schemes",
    {name: f"matey.tokens.segments:{name}" for name in ("vit", "svit", "avit")},
)
"""Functions of the patch sizes that return the keys of a block's attentions, see `matey.tokens.segments`."""

BACKENDS: Registry[Any] = Registry(
    "attention backend",
    "matey.backends",
    {name: f"matey.model.attention:{name}" for name in ("auto", "grouped", "varlen", "flash_attn")},
)
"""Functions that attend within segments, see `matey.model.attention`."""

CRITERIA: Registry[Any] = Registry(
    "refinement criterion",
    "matey.criteria",
    {"variance": "matey.tokens.criteria:patch_variance"}
    | {name: f"matey.tokens.criteria:{name}" for name in ("last_change", "gradient", "second_difference", "random")},
)
"""Functions that rate how much each patch is worth splitting, see `matey.tokens.criteria`."""

LOSSES: Registry[Any] = Registry(
    "loss",
    "matey.losses",
    {name: f"matey.train.loss:{name.upper()}" for name in ("nrmse", "balanced", "gradient")},
    type="matey.train.loss:Loss",
)
"""The training losses, see `matey.train.loss`."""

FINETUNE_MODES: Registry[Any] = Registry(
    "fine-tuning mode",
    "matey.finetune_modes",
    {"all": "matey.train.finetune:every_part"}
    | {name: f"matey.train.finetune:{name}" for name in ("prepost", "lora", "head")},
)
"""Functions that choose the parameters of a model that are trained, see `matey.train.finetune`."""

Scheme = Annotated[str, AfterValidator(SCHEMES.check)]
Backend = Annotated[str, AfterValidator(BACKENDS.check)]
RefineRule = Literal["threshold", "fraction", "budget"]
RefineValues = Literal["normalised", "raw"]
Criterion = Annotated[str, AfterValidator(CRITERIA.check)]
LossName = Annotated[str, AfterValidator(LOSSES.check)]
FinetuneMode = Annotated[str, AfterValidator(FINETUNE_MODES.check)]

Part = Literal[
    "embedding",
    "embedding_fields",
    "position",
    "lead_time",
    "condition",
    "condition_fields",
    "parameters",
    "blocks",
    "decoder",
    "decoder_fields",
    "cells",
    "cells_fields",
]
"""A part of the network, see `matey.model.parts`."""
