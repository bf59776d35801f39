"""From a micro-batch of fields to its token layout: normalise, refine, lay out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from matey.fields import FieldBatch
from matey.tokens.coverage import Frames
from matey.tokens.layout import TokenLayout, layout_tokens
from matey.tokens.normalisation import Normalisation, normalisation_of
from matey.tokens.patches import Patch, cover
from matey.tokens.refinement import Refinement, check_window, refine


@dataclass(frozen=True)
class TokenBatch:
    """A micro-batch ready to be embedded.

    Attributes:
        batches: the fields, each batch of one system on one grid.
        layout: the layout of the tokens of all batches.
        normalised: fields ``(b, t, f, z, y, x)`` of each batch, each sample and field with zero mean and unit variance
            over its history.
        normalisations: the statistics of each batch, which undo the normalisation.
        covered: size ``z, y, x`` of what the coarsest patches cover, at least the grid, for each batch.
    """

    batches: tuple[FieldBatch, ...]
    layout: TokenLayout
    normalised: tuple[Tensor, ...]
    normalisations: tuple[Normalisation, ...]
    covered: tuple[tuple[int, int, int], ...]

    @property
    def frames(self) -> list[Frames]:
        """The frames of every group."""
        return [
            Frames(batch.num_samples, (batch.num_frames, *batch.grid), batch.periodic, covered)
            for batch, covered in zip(self.batches, self.covered, strict=True)
        ]

    def with_last_frames(self, number: int) -> TokenBatch:
        """Return the batch with the last frames alone in ``normalised``: once tokens are embedded, no others are needed."""
        return replace(self, normalised=tuple(fields[:, -number:].clone() for fields in self.normalised))


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
    normalised = tuple(n.apply(batch.history) for n, batch in zip(normalisations, batches, strict=True))
    values = [batch.history for batch in batches] if refinement.values == "raw" else normalised
    refined = [refine(fields, patches, refinement) for fields in values]
    layout = layout_tokens(
        [(batch.num_samples, *window) for batch, window in zip(batches, windows, strict=True)],
        refined,
        patches,
        device=batches[0].history.device,
        keep_parents=refinement.keep_parents,
    )
    covered = tuple(cover(window, patches[0])[1:] for window in windows)
    return TokenBatch(tuple(batches), layout, normalised, normalisations, covered)
