"""The scales that the normalisation takes out of a sample, as the network is told them, and their ranges in training.

A network that is told of a scale that it never saw makes of it what it will: fields in other units would have forecasts of any
size. So a scale beyond the range that a field had in training is told as the nearest within.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from matey.tokens.normalisation import Normalisation

NUM_SCALES = 3

Ranges: TypeAlias = Mapping[str, Sequence[Sequence[float]]]
"""Smallest and largest values of `Normalisation.scales` for each field by its name, ``[[low] * 3, [high] * 3]``."""


def told(
    normalisations: Iterable[Normalisation], rows: Sequence[Tensor], fields: Sequence[str], ranges: Ranges | None
) -> tuple[Tensor, ...]:
    """Return the scales of every batch as the network is told them, see `within`."""
    each = zip(normalisations, rows, strict=True)
    return tuple(within(normalisation.scales(), row, fields, ranges) for normalisation, row in each)


def within(scales: Tensor, rows: Tensor, fields: Sequence[str], ranges: Ranges | None) -> Tensor:
    """Return scales ``(b, f, 3)`` within the ranges of their fields; fields without a range keep theirs.

    Args:
        scales: the scales of the samples of a batch.
        rows: ``(f,)``, the rows of its fields in the vocabulary.
        fields: the vocabulary.
        ranges: the ranges; None: there are none.
    """
    if not ranges:
        return scales
    everything = [[-torch.inf] * NUM_SCALES, [torch.inf] * NUM_SCALES]
    bounds = scales.new_tensor([ranges.get(name, everything) for name in fields])[rows]  # (f, 2, 3)
    return torch.minimum(torch.maximum(scales, bounds[:, 0]), bounds[:, 1])


def check_ranges(ranges: Ranges) -> None:
    """Raise ValueError unless ranges are, for each field, three finite numbers and three that are not smaller."""
    if not isinstance(ranges, Mapping):
        raise ValueError(f"scales must name fields, each with [[low, low, low], [high, high, high]], got {ranges!r}.")
    for name, bounds in ranges.items():
        try:
            found = torch.tensor(bounds, dtype=torch.float64)
        except (TypeError, ValueError, RuntimeError, OverflowError):
            found = torch.empty(0)
        if found.shape != (2, NUM_SCALES) or not found.isfinite().all() or (found[0] > found[1]).any():
            raise ValueError(f"scales of {name!r} must be [[low, low, low], [high, high, high]], got {bounds!r}.")


def ranges_of(scales: Tensor, names: Sequence[str]) -> dict[str, list[list[float]]]:
    """Return the ranges of scales ``(b, f, 3)`` of some fields."""
    low, high = scales.amin(dim=0).tolist(), scales.amax(dim=0).tolist()
    return {name: [low[number], high[number]] for number, name in enumerate(names)}


def united(found: Iterable[Ranges]) -> dict[str, list[list[float]]]:
    """Return ranges that hold all of some."""
    total: dict[str, list[list[float]]] = {}
    for ranges in found:
        for name, (low, high) in ranges.items():
            lows, highs = total.get(name, [low, high])
            total[name] = [[*map(min, lows, low)], [*map(max, highs, high)]]
    return total


def widened(ranges: Ranges, margin: float) -> dict[str, list[list[float]]]:
    """Return ranges that reach further on each side, by a part ``margin`` of what they span."""
    return {
        name: [
            [a - margin * (b - a) for a, b in zip(low, high, strict=True)],
            [b + margin * (b - a) for a, b in zip(low, high, strict=True)],
        ]
        for name, (low, high) in ranges.items()
    }
