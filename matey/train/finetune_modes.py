"""The modes of fine-tuning: each freezes parameters of the model, and may put adapters of low rank beside them.

A parameter is identified by its name, and by the part of the network that it belongs to (`matey.model.parts`).
"""

from __future__ import annotations

from collections.abc import Set
from typing import get_args

from matey.config import FinetuneSection, Part
from matey.model.lora import add_adapters, is_adapter
from matey.model.matey import MateyModel
from matey.model.parts import OUTPUT, part_of

ALL: frozenset[Part] = frozenset(get_args(Part))


def every_part(model: MateyModel, settings: FinetuneSection) -> None:
    """Train all parameters."""
    train_parts(model, ALL)


def prepost(model: MateyModel, settings: FinetuneSection) -> None:
    """Train all but the blocks."""
    train_parts(model, ALL - {"blocks"})


def lora(model: MateyModel, settings: FinetuneSection) -> None:
    """Train all but the blocks, and adapters of low rank beside the blocks' linear maps."""
    add_adapters(model, settings.lora_rank, settings.lora_alpha)
    train_parts(model, ALL - {"blocks"})


def head(model: MateyModel, settings: FinetuneSection) -> None:
    """Train the parts that make the output."""
    train_parts(model, OUTPUT)


def train_parts(model: MateyModel, parts: Set[Part]) -> None:
    """Freeze all parameters except those of some parts and of adapters."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(is_adapter(name) or part_of(name) in parts)
