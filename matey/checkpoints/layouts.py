"""How DeepSpeed lays parameters out in a shard of the optimizer's state: without ZeRO, with ZeRO 1 and 2, and with ZeRO 3."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Size, Tensor

# A stretch of a parameter: its name, where it starts in the flattened parameter, and its values.
Stretch = tuple[str, int, Tensor]


def plain(optimizer: Mapping[str, Any], groups: Sequence[Sequence[str]], what: str) -> Iterator[Stretch]:
    """Yield a moment as ZeRO 0 keeps it: whole, numbered through the groups of parameters; Muon has no second moment."""
    names = [name for group in groups for name in group]
    for index, name in enumerate(names):
        if (values := optimizer["state"][index].get(what)) is not None:
            yield name, 0, values.flatten()


def mapped(state: Mapping[str, Any], what: str, starts: dict[str, int]) -> Iterator[Stretch]:
    """Yield a rank's values as ZeRO 1 and 2 divide them: a flat group in equal parts, with a list of the pieces in each part.

    Args:
        state: the state of the rank's optimizer.
        what: the values to yield, ``fp32`` or one of the moments.
        starts: number of values of each parameter that the ranks before this one hold; updated in place.
    """
    if what == "fp32":
        flats = state["single_partition_of_fp32_groups"]
    else:
        flats = _moment(state["base_optimizer_state"], what)
    for flat, pieces in zip(flats, state["param_slice_mappings"], strict=True):
        for name, piece in pieces.items() if flat is not None else ():
            yield name, starts[name], flat[piece.start : piece.start + piece.numel]
            starts[name] += piece.numel


def sliced(
    state: Mapping[str, Any], shapes: Sequence[Mapping[str, Size]], rank: int, num_ranks: int, what: str
) -> Iterator[Stretch]:
    """Yield a rank's values as ZeRO 3 divides them: every parameter in equal slices, the last ones perhaps padding."""
    flats = state["fp32_flat_groups"] if what == "fp32" else _moment(state["optimizer_state_dict"], what)
    for flat, group in zip(flats, shapes, strict=True):
        offset = 0
        for name, shape in group.items() if flat is not None else ():
            size = math.prod(shape)
            length = -(-size // num_ranks)
            start = min(rank * length, size)
            yield name, start, flat[offset : offset + min(length, size - start)]
            offset += length


def adam_step(state: Mapping[str, Any]) -> int:
    """Return how many steps a rank's part of the optimizer has taken."""
    adam = state.get("base_optimizer_state") or state["optimizer_state_dict"]
    return int(_groups(adam)[0]["step"])


def _moment(adam: Any, what: str) -> list[Tensor | None]:  # noqa: ANN401
    """Return a moment of each group; Muon has no second moment."""
    return [group.get(what) for group in _groups(adam)]


def _groups(adam: Any) -> list[dict[str, Any]]:  # noqa: ANN401
    return [adam["state"][index] for index in sorted(adam["state"])]
