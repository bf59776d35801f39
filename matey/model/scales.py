"""The scales that the normalisation removes from a sample, as the network is told them, and their ranges in training.

The response of a network to a scale that it never saw is arbitrary: fields in other units could get forecasts of any size. So
a scale outside the range of its field in training is told as the nearest value inside.
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
        ranges: the ranges; None: no ranges.
    """
    if not ranges:
        return scales
    everything = [[-torch.inf] * NUM_SCALES, [torch.inf] * NUM_SCALES]
    bounds = scales.new_tensor([ranges.get(name, everything) for name in fields])[rows]  # (f, 2, 3)
    return torch.minimum(torch.maximum(scales, bounds[:, 0]), bounds[:, 1])


def check_ranges(ranges: Ranges) -> None:
    """Raise ValueError unless each field has three finite lower bounds and three finite upper bounds that are not smaller."""
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
    """Return the smallest ranges that contain all the given ones."""
    total: dict[str, list[list[float]]] = {}
    for ranges in found:
        for name, (low, high) in ranges.items():
            lows, highs = total.get(name, [low, high])
            total[name] = [[*map(min, lows, low)], [*map(max, highs, high)]]
    return total


def widened(ranges: Ranges, margin: float) -> dict[str, list[list[float]]]:
    """Return ranges that are wider on each side, by ``margin`` times their width."""
    return {
        name: [
            [a - margin * (b - a) for a, b in zip(low, high, strict=True)],
            [b + margin * (b - a) for a, b in zip(low, high, strict=True)],
        ]
        for name, (low, high) in ranges.items()
    }
