"""From a micro-batch of fields to its token layout: take statistics, refine, lay out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from matey.fields import FieldBatch
from matey.tokens.layout import TokenLayout, layout_tokens
from matey.tokens.normalisation import Normalisation, normalisation_of
from matey.tokens.patches import Patch, cover
from matey.tokens.refinement import Refinement, check_window, refine
from matey.tokens.tiles import Frames


@dataclass(frozen=True)
class TokenBatch:
    """What is known of the tokens of a micro-batch before any is embedded.

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
    windows = [(batch.num_frames, *batch.grid) for batch in batches]
    for batch, window in zip(batches, windows, strict=True):
        try:
            check_window(window, patches, refinement)
        except ValueError as error:
            raise ValueError(f"{batch.system}: {error}") from None
    normalisations = tuple(normalisation_of(batch.history) for batch in batches)
    layout = layout_tokens(
        [(batch.num_samples, *window) for batch, window in zip(batches, windows, strict=True)],
        [_refined(*of_batch, patches, refinement) for of_batch in zip(batches, normalisations, strict=True)],
        patches,
        device=batches[0].history.device,
        keep_parents=refinement.keep_parents,
    )
    frames = tuple(
        Frames(batch.num_samples, window, batch.periodic, cover(window, patches[0])[1:])
        for batch, window in zip(batches, windows, strict=True)
    )
    return TokenBatch(layout, normalisations, frames)


def _refined(
    batch: FieldBatch, normalisation: Normalisation, patches: Sequence[Patch], refinement: Refinement
) -> list[Tensor]:
    """Decide which patches are split; with one level of patches the fields are not looked at."""
    if len(patches) == 1:
        return []
    values = batch.history if refinement.values == "raw" else normalisation.apply(batch.history)
    return refine(values, patches, refinement)
