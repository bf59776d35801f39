"""From a micro-batch of fields to its token layout: take statistics, refine, lay out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from matey.fields import FieldBatch
from matey.samples import Samples
from matey.tokens.decomposition import Frames
from matey.tokens.layout import TokenLayout, layout_tokens
from matey.tokens.normalisation import Normalisation, normalisation_of
from matey.tokens.patches import Patch, cover
from matey.tokens.refinement import Refinement, check_window, refine


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
