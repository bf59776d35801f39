"""From a micro-batch of fields to its token layout: take statistics, refine, lay out.

Fields that are read box by box give a row of numbers for each coarsest patch instead; the results are the same to the last bit,
whichever ranks make the rows and however large the boxes are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor

from matey.fields import FieldBatch, Samples
from matey.tokens.decomposition import Frames
from matey.tokens.layout import TokenLayout, layout_tokens
from matey.tokens.normalisation import Normalisation, normalisation_from, normalisation_of, patch_sums
from matey.tokens.patches import Patch, cover, parts_along
from matey.tokens.refinement import Refinement, check_window, from_all_patches, of_each_patch, refine, split_by


@dataclass(frozen=True)
class TokenBatch:
    """The tokens of a micro-batch before any is embedded.

    Attributes:
        layout: the layout of the tokens of all batches.
        normalisations: the statistics of each batch, which bring each sample and field to zero mean and unit variance
            over its history.
        frames: the frames of each batch.
    """

    layout: TokenLayout
    normalisations: tuple[Normalisation, ...]
    frames: tuple[Frames, ...]


def tokenize(batches: Sequence[FieldBatch], patches: Sequence[Patch], refinement: Refinement) -> TokenBatch:
    """Tokenize a micro-batch; with one level of patches nothing is refined.

    Raises:
        ValueError: a patch does not divide the number of frames of a batch, or a budget cannot be spent.
    """
    samples = [batch.samples for batch in batches]
    check_samples(samples, patches, refinement)
    normalisations = [normalisation_of(batch.history, patches[0]) for batch in batches]
    refined = [_refined(*of_batch, patches, refinement) for of_batch in zip(batches, normalisations, strict=True)]
    return lay_out(samples, normalisations, refined, patches, refinement)


def check_samples(samples: Sequence[Samples], patches: Sequence[Patch], refinement: Refinement) -> None:
    """Raise ValueError, with the name of the system, unless the samples' windows can be cut into patches by the rule."""
    for batch in samples:
        try:
            check_window(batch.window, patches, refinement)
        except ValueError as error:
            raise ValueError(f"{batch.system}: {error}") from None


def lay_out(
    samples: Sequence[Samples],
    normalisations: Sequence[Normalisation],
    refined: Sequence[Sequence[Tensor]],
    patches: Sequence[Patch],
    refinement: Refinement,
) -> TokenBatch:
    """Lay out the tokens of a micro-batch whose statistics and refinement are known."""
    layout = layout_tokens(
        [(batch.number, *batch.window) for batch in samples],
        refined,
        patches,
        device=normalisations[0].mean.device,
        keep_parents=refinement.keep_parents,
    )
    frames = tuple(
        Frames(batch.number, batch.window, batch.periodic, cover(batch.window, patches[0])[1:]) for batch in samples
    )
    return TokenBatch(layout, tuple(normalisations), frames)


def _refined(
    batch: FieldBatch, normalisation: Normalisation, patches: Sequence[Patch], refinement: Refinement
) -> list[Tensor]:
    """Decide which patches are split; with one level of patches the fields are not looked at."""
    if len(patches) == 1:
        return []
    values = batch.history if refinement.values == "raw" else normalisation.apply(batch.history)
    return refine(values, patches, refinement)


def sums_by_coarsest(history: Tensor, coarsest: Patch) -> Tensor:
    """Return the sums for statistics, a row for each coarsest patch ``(k, 4 f)`` of a box ``(1, t, f, z, y, x)``."""
    return rearrange(patch_sums(history, coarsest), "1 s f Z Y X -> (Z Y X) (s f)")


def statistics_from(rows: Tensor, samples: Samples, grid: Sequence[int], coarsest: Patch) -> Normalisation:
    """Return the statistics of samples from the rows of all coarsest patches of a grid ``b Z Y X``, see `sums_by_coarsest`."""
    number, Z, Y, X = grid
    sums = rearrange(rows, "(b Z Y X) (s f) -> b s f Z Y X", b=number, Z=Z, Y=Y, X=X, s=4)
    return normalisation_from(sums, samples.window[0], samples.window[1:], coarsest)


def criteria_by_coarsest(
    history: Tensor, normalisation: Normalisation, patches: Sequence[Patch], refinement: Refinement
) -> Tensor:
    """Return the criteria of the patches in each coarsest patch, a row for each ``(k, w)`` of a box ``(1, t, f, z, y, x)``."""
    values = history if refinement.values == "raw" else normalisation.apply(history)
    levels = zip(of_each_patch(values, patches, refinement), _ratios(patches), strict=True)
    rows = [
        rearrange(criterion, "1 (Z z) (Y y) (X x) -> (Z Y X) (z y x)", z=z, y=y, x=x) for criterion, (z, y, x) in levels
    ]
    return torch.cat(rows, dim=1)


def width_of_criteria(patches: Sequence[Patch]) -> int:
    """Return the number of patches of all levels but the finest in a coarsest patch: the length of a row of criteria."""
    return sum(z * y * x for z, y, x in _ratios(patches))


def refined_from(
    rows: Tensor, samples: Samples, grid: Sequence[int], patches: Sequence[Patch], refinement: Refinement
) -> list[Tensor]:
    """Decide which patches are split, from the criteria of all coarsest patches of a grid ``b Z Y X``."""
    number, Z, Y, X = grid
    ratios = _ratios(patches)
    criteria = [
        rearrange(values, "(b Z Y X) (z y x) -> b (Z z) (Y y) (X x)", b=number, Z=Z, Y=Y, X=X, z=z, y=y, x=x)
        for values, (z, y, x) in zip(rows.split([z * y * x for z, y, x in ratios], dim=1), ratios, strict=True)
    ]
    return split_by(
        from_all_patches(criteria, samples.window, patches, refinement), samples.window, patches, refinement
    )


def _ratios(patches: Sequence[Patch]) -> list[tuple[int, int, int]]:
    """Return the number of patches along ``z, y, x`` of a coarsest patch, for each level but the finest."""
    return [parts_along(patches[0], patch) for patch in patches[:-1]]
