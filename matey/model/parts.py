"""The parts of the network, by the names of its parameters: what can be frozen or trained at a rate of its own.

Adapters of low rank beside the linear maps of the blocks are made by the PEFT library, and merged into the weights here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import cast

import torch
from torch import Tensor

from matey.config import Part
from matey.model.matey import MateyModel

LINEAR_MAPS = r"blocks\..*\.(qkv|out|expand|contract)"


def add_adapters(model: MateyModel, rank: int, alpha: float) -> None:
    """Put an adapter beside each linear map of the blocks; its product starts at zero and is multiplied by ``alpha / rank``."""
    # Imported on use: it takes seconds.
    from peft import LoraConfig, inject_adapter_in_model

    inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=alpha, target_modules=LINEAR_MAPS), model)


def adapters_of(model: MateyModel) -> tuple[int, float] | None:
    """Return rank and alpha of a model's adapters; None without any."""
    adapters = getattr(model, "peft_config", None)
    return None if adapters is None else (adapters["default"].r, adapters["default"].lora_alpha)


def is_adapter(name: str) -> bool:
    """Return whether a parameter is an adapter's."""
    return ".lora_" in name


def plain_names(names: Iterable[str]) -> set[str]:
    """Return the names that these weights have in a model without adapters."""
    return {name.replace(".base_layer.", ".") for name in names if not is_adapter(name)}


def plain_weights(model: MateyModel, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Return the weights of a model in the form of one without adapters."""
    adapters = adapters_of(model)
    return weights if adapters is None else merge_adapters(weights, *adapters)


def merge_adapters(weights: Mapping[str, Tensor], rank: int, alpha: float) -> dict[str, Tensor]:
    """Return the weights of a plain `MateyModel`, with the product of each adapter added to its linear map.

    Sums are float32 where the map is bfloat16, as frozen weights are in training: bfloat16 would lose most of what is added.

    Args:
        weights: the whole state of a model with adapters.
        rank: rank of the adapters.
        alpha: scale of the adapters, their factor times the rank.
    """
    merged = {}
    for name, value in weights.items():
        if is_adapter(name):
            continue
        (plain,) = plain_names([name])
        if plain != name and name.endswith("weight"):
            down, up = (weights[plain.replace("weight", f"lora_{side}.default.weight")] for side in "AB")
            wide = torch.promote_types(value.dtype, torch.float32)
            value = value.to(wide) + alpha / rank * (up.to(wide) @ down.to(wide))
        merged[plain] = value
    return merged


FIELD_ROWS: dict[str, tuple[str, ...]] = {
    "embeddings": ("field_weight",),
    "conditions": ("field_weight",),
    "cells_before": ("field_weight",),
    "cells_after": ("field_weight", "field_stencil", "field_mix", "field_out", "field_bias"),
    "decoders": ("field_weight", "field_bias"),
}
"""Parameters with a row for each field name, by part of the network."""

CELL_OUTPUTS = tuple(f"cells_after.{name}" for name in ("field_stencil", "field_mix", "field_out", "field_bias"))
"""Parameters of the cells that make changes of fields; the others make the features they depend on."""

_OTHERS = {"told": "parameters", "taking": "embedding", "maps_before": "embedding"}
_OTHERS |= dict.fromkeys(("norm", "giving", "maps_after"), "decoder")

OUTPUT: frozenset[Part] = frozenset({"decoder", "decoder_fields", "cells", "cells_fields"})
"""Parts after the blocks."""


def part_of(name: str) -> Part:
    """Return the part that a parameter such as ``blocks.0.mlp.expand.weight`` belongs to."""
    top, *_, last = name.split(".")
    if top in FIELD_ROWS:
        where = "cells" if top.startswith("cells") else top.removesuffix("s")
        found = f"{where}_fields" if last in FIELD_ROWS[top] else where
    else:
        found = _OTHERS.get(top, top)
    return cast(Part, found)  # true of all names in the network


def depth_of(name: str, num_blocks: int) -> int:
    """Return how many layers a parameter lies above the input: 0 before the blocks, ``num_blocks + 1`` after them."""
    part = part_of(name)
    if part == "blocks":
        return int(name.split(".")[1]) + 1
    return num_blocks + 1 if part in OUTPUT else 0
