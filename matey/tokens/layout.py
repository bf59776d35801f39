"""Where every token of a micro-batch sits: integers and positions, no features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from matey.tokens.patches import Patch, patch_grid
from matey.tokens.refinement import to_children


@dataclass(frozen=True)
class TokenLayout:
    """The packed tokens of a micro-batch, sample after sample; within one, by place (a parent's children together), then time.

    Attributes:
        group: ``(n,)`` index of the `FieldBatch` in the micro-batch.
        sample: ``(n,)`` index of the sample in the whole micro-batch.
        level: ``(n,)`` level of refinement, 0 is the coarsest.
        row: ``(n,)`` row of the token's patch in ``patchify(history, patches[level])`` of its group.
        place: ``(n, 3)`` position z, y, x in the patch grid of its level.
        time: ``(n,)`` position in time, in patches of its level.
        coarse: ``(n, 4)`` position t, z, y, x of the coarsest patch that holds the token.
        is_last: ``(n,)`` whether the token holds the last frame, and so carries the prediction.
        centre: ``(n, 4)`` centre t, z, y, x in the unit domain.
        extent: ``(n, 4)`` size t, z, y, x in the unit domain.
    """

    group: Tensor
    sample: Tensor
    level: Tensor
    row: Tensor
    place: Tensor
    time: Tensor
    coarse: Tensor
    is_last: Tensor
    centre: Tensor
    extent: Tensor

    @property
    def num_tokens(self) -> int:
        """Number of tokens ``n``."""
        return self.sample.shape[0]

    def select(self, index: Tensor | slice) -> TokenLayout:
        """Return the layout of some of the tokens, in the order of ``index``."""
        return TokenLayout(**{field.name: getattr(self, field.name)[index] for field in fields(self)})


def layout_tokens(
    shapes: Sequence[tuple[int, ...]],
    refined: Sequence[Sequence[Tensor]],
    patches: Sequence[Patch],
    device: torch.device | str | None = None,
) -> TokenLayout:
    """Lay out the leaves of every sample's refinement as one packed list.

    Args:
        shapes: per group ``(b, t, z, y, x)``.
        refined: per group and level but the finest, ``(b, Z, Y, X)`` of bool, true where a patch is split.
        patches: levels from coarse to fine.
        device: where the layout's tensors shall lie, that of ``refined``.

    Raises:
        ValueError: a patch does not divide a grid or the number of frames.
    """
    parts, first_sample = [], 0
    for group, (shape, splits) in enumerate(zip(shapes, refined, strict=True)):
        parts.append(_layout_group(group, first_sample, shape, splits, patches, device))
        first_sample += shape[0]
    return TokenLayout(
        **{field.name: torch.cat([getattr(part, field.name) for part in parts]) for field in fields(TokenLayout)}
    )


def leaves_of(refined: Sequence[Tensor], patches: Sequence[Patch], coarse: Tensor) -> list[Tensor]:
    """Return per level ``(b, Z, Y, X)`` of bool: the patches that exist and are not split. ``coarse`` is all true."""
    exists, leaves = coarse, []
    for level, split in enumerate(refined):
        leaves.append(exists & ~split)
        exists = to_children(exists & split, patches[level], patches[level + 1])
    return [*leaves, exists]


def _layout_group(
    group: int,
    first_sample: int,
    shape: tuple[int, ...],
    splits: Sequence[Tensor],
    patches: Sequence[Patch],
    device: torch.device | str | None,
) -> TokenLayout:
    num_samples, *window = shape
    grids = [patch_grid(window, patch) for patch in patches]
    coarse = torch.ones((num_samples, *grids[0][1:]), dtype=torch.bool, device=device)
    parts, keys = [], []
    for level, leaf in enumerate(leaves_of(splits, patches, coarse)):
        sample, *place = leaf.nonzero(as_tuple=True)
        keys.append(_tree_key(sample, place, level, patches, grids))
        parts.append(_tokens_of(group, first_sample, sample, torch.stack(place, 1), level, patches, window))
    # Leaves come level by level; sorting their keys puts them in the order of a depth-first walk through the tree.
    order = torch.argsort(torch.cat([k.repeat_interleave(g[0]) for k, g in zip(keys, grids, strict=True)]), stable=True)
    merged = {field.name: torch.cat([getattr(part, field.name) for part in parts]) for field in fields(TokenLayout)}
    return TokenLayout(**merged).select(order)


def _tree_key(
    sample: Tensor, place: Sequence[Tensor], level: int, patches: Sequence[Patch], grids: Sequence[tuple[int, ...]]
) -> Tensor:
    """Number a leaf by its sample, its coarse ancestor, and its rank among its siblings on each level below."""
    key, radix = sample, grids[0][1:]
    for depth in range(len(patches)):
        number = torch.zeros_like(key)
        if depth <= level:
            for p, cells, own, size in zip(place, patches[depth][1:], patches[level][1:], radix, strict=True):
                number = number * size + (p // (cells // own)) % size
        key = key * (radix[0] * radix[1] * radix[2]) + number
        if depth + 1 < len(patches):
            radix = tuple(c // f for c, f in zip(patches[depth][1:], patches[depth + 1][1:], strict=True))
    return key


def _tokens_of(
    group: int,
    first_sample: int,
    sample: Tensor,
    place: Tensor,
    level: int,
    patches: Sequence[Patch],
    window: Sequence[int],
) -> TokenLayout:
    """Repeat the leaves of one level over time and say where each token lies."""
    patch = patches[level]
    times, Z, Y, X = patch_grid(window, patch)
    spatial_row = ((sample * Z + place[:, 0]) * Y + place[:, 1]) * X + place[:, 2]
    time = torch.arange(times, device=sample.device).repeat(sample.shape[0])
    sample, spatial_row = sample.repeat_interleave(times), spatial_row.repeat_interleave(times)
    place = place.repeat_interleave(times, dim=0)
    extent = torch.tensor([p / w for p, w in zip(patch, window, strict=True)], device=sample.device)
    position = torch.cat([time[:, None], place], 1)
    ratio = torch.tensor([c // p for c, p in zip(patches[0], patch, strict=True)], device=sample.device)
    centre = (position + 0.5) * extent
    return TokenLayout(
        group=torch.full_like(time, group),
        sample=first_sample + sample,
        level=torch.full_like(time, level),
        row=spatial_row * times + time,
        place=place,
        time=time,
        coarse=position // ratio,
        is_last=time == times - 1,
        centre=centre,
        extent=extent.expand_as(centre),
    )
