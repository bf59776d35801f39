"""The parts of the network, by the names of its parameters: what can be frozen or trained at a rate of its own."""

from __future__ import annotations

from typing import cast

from matey.config import Part

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
