"""Which tokens attend to each other: a key per token becomes an order and lengths, once per batch.

An attention scheme is a function of the patch sizes: for each attention of a block, in order, it returns the key. A key is a
function of the layout; it gives every token an integer, and tokens with equal integers attend to each other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from matey.tokens.layout import TokenLayout
from matey.tokens.patches import Patch, long_axes


@dataclass(frozen=True)
class Segmentation:
    """Queries and the keys that they attend to, brought together segment by segment.

    Attributes:
        queries: ``(m,)`` the query at each packed position; None if queries already lie segment by segment.
        keys: ``(n,)`` the key at each packed position; None if keys already lie segment by segment.
        inverse: ``(m,)`` the packed position of each query; None where ``queries`` is None.
        runs: tuples ``(count, queries, keys)``: ``count`` consecutive segments of ``queries`` queries and ``keys`` keys
            each, in packed order.
        offsets: int32 ``(2, s + 1)``, where the queries and the keys of each segment begin in packed order, and the end
            of the last.
    """

    queries: Tensor | None
    keys: Tensor | None
    inverse: Tensor | None
    runs: tuple[tuple[int, int, int], ...]
    offsets: Tensor


def segment(key: Tensor, queries: slice | None = None) -> Segmentation:
    """Return the segmentation of an integer key ``(n,)``: tokens with equal keys attend to each other.

    Args:
        key: ``(n,)``, the integer key of every token; all tokens are keys of the attention.
        queries: the consecutive tokens that are the queries of the attention; by default all.
    """
    num_tokens = key.shape[0]
    start, stop, _ = (queries or slice(None)).indices(num_tokens)
    order = torch.argsort(key, stable=True)
    num_keys = torch.unique_consecutive(key[order], return_counts=True)[1]
    num_queries = num_keys
    if (start, stop) != (0, num_tokens):
        number = _numbers(num_keys)
        is_query = (order >= start) & (order < stop)
        num_queries = torch.bincount(number[is_query], minlength=len(num_keys))
        # Segments without a query here are left out.
        order = order[num_queries[number] > 0]
        num_queries, num_keys = num_queries[num_queries > 0], num_keys[num_queries > 0]
    pair = num_queries * (num_tokens + 1) + num_keys
    if torch.unique_consecutive(pair).numel() > pair.unique().numel():
        # Segments of one length far apart would each be a call of its own; bring them together.
        by_length = torch.argsort(pair, stable=True)
        order = order[torch.argsort(_inverse(by_length)[_numbers(num_keys)], stable=True)]
        num_queries, num_keys, pair = num_queries[by_length], num_keys[by_length], pair[by_length]
    packed = order[(order >= start) & (order < stop)] - start
    in_place, keys_in_place = (
        _is_range(index, length) for index, length in ((packed, stop - start), (order, num_tokens))
    )
    counts = torch.unique_consecutive(pair, return_counts=True)[1]
    first = counts.cumsum(0) - counts
    return Segmentation(
        queries=None if in_place else packed,
        keys=None if keys_in_place else order,
        inverse=None if in_place else _inverse(packed),
        runs=tuple(map(tuple, torch.stack([counts, num_queries[first], num_keys[first]], 1).tolist())),
        offsets=F.pad(torch.stack([num_queries, num_keys]).cumsum(1), (1, 0)).to(torch.int32),
    )


def _numbers(lengths: Tensor) -> Tensor:
    """Return the segment's number of each token in segments of these lengths."""
    return torch.arange(len(lengths), device=lengths.device).repeat_interleave(lengths)


def _inverse(permutation: Tensor) -> Tensor:
    inverse = torch.empty_like(permutation)
    inverse[permutation] = torch.arange(len(permutation), device=permutation.device)
    return inverse


def _is_range(index: Tensor, length: int) -> bool:
    return torch.equal(index, torch.arange(length, device=index.device))


def joint_key(*columns: Tensor) -> Tensor:
    """Return one integer key ``(n,)`` that is equal where all columns ``(n,)`` of non-negative integers are."""
    key = columns[0]
    for column in columns[1:]:
        key = key * (column.max() + 1 if len(column) else 1) + column
    return key


def sample_key(layout: TokenLayout) -> Tensor:
    """Bring all tokens of a sample, or of a family in it, together: full attention over space and time."""
    return joint_key(layout.sample, layout.family)


def place_key(layout: TokenLayout) -> Tensor:
    """Bring the times of each leaf patch together."""
    return joint_key(layout.sample, layout.level, *layout.place.unbind(1))


def time_key(layout: TokenLayout) -> Tensor:
    """Bring all of space at one time together, within a family."""
    return joint_key(layout.sample, layout.family, layout.band[:, 0])


def line_key(layout: TokenLayout, axis: int) -> Tensor:
    """Bring one line along an axis (1, 2, 3 for z, y, x) together, at one time, within a family.

    On a uniform grid, and within the families of the token set ``mul``, this is the usual axial attention. Among leaves of
    several levels a line is as wide as the coarsest patch and holds all leaves in it.
    """
    time, *sides = layout.band.unbind(1)
    others = [side for number, side in enumerate(sides, start=1) if number != axis]
    return joint_key(layout.sample, layout.family, time, *others)


Key = Callable[[TokenLayout], Tensor]


def vit(patches: Sequence[Patch]) -> tuple[Key, ...]:
    """Attend over space and time at once."""
    return (sample_key,)


def svit(patches: Sequence[Patch]) -> tuple[Key, ...]:
    """Attend over time, then over space."""
    return place_key, time_key


def avit(patches: Sequence[Patch]) -> tuple[Key, ...]:
    """Attend over time, then along each of the axes z, y, x on which a patch has more than one cell."""
    return place_key, *(partial(line_key, axis=axis) for axis in long_axes(patches))
