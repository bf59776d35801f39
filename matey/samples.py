"""What is known of the samples of a batch before and besides their values, and the boxes of values that a rank has read of it.

Axis legend: see `matey.fields`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # no tensor is made here, and PyTorch takes seconds to import
    import torch
    from torch import Tensor


@dataclass(frozen=True)
class Samples:
    """All that is known of the samples of a batch except the values of their fields.

    Attributes:
        system: name of the PDE system.
        fields: names along axis ``f``.
        window: size ``t, z, y, x`` of a history.
        dtype: precision of the fields.
        lead_time: ``(b,)``, number of snapshots from the last frame to the target.
        periodic: whether the domain wraps around along ``z, y, x``.
        draw: ``(b,)`` int64, the number of each sample's draw in the training stream, or None outside of training.
        given_fields: names of the fields that are known and not predicted.
        parameters: numbers that set a sample's physics apart, by name: ``(b,)``, NaN where a sample's is not known.
    """

    system: str
    fields: tuple[str, ...]
    window: tuple[int, int, int, int]
    dtype: torch.dtype
    lead_time: Tensor
    periodic: tuple[bool, bool, bool]
    draw: Tensor | None = None
    given_fields: tuple[str, ...] = ()
    parameters: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def number(self) -> int:
        """Number of samples ``b``."""
        return len(self.lead_time)


Box = tuple[int, tuple[slice, slice, slice]]
"""A sample, and a box of cells along ``z, y, x``; it may end beyond a periodic axis, to go on at its other side."""


@dataclass(frozen=True)
class Piece:
    """Values in a box of cells of one sample.

    Attributes:
        sample: the sample's place in its batch.
        start: first cell of the box along ``z, y, x``. A box that ends beyond a periodic axis goes on at its other side.
        history: ``(t, f, z, y, x)``, the past frames in physical units.
        target: ``(f, z, y, x)``, the frame to predict; None where there is none to compare with.
        given: ``(t, f, z, y, x)``, fields that are known and not predicted, see `matey.fields.FieldBatch`; None without any.
    """

    sample: int
    start: tuple[int, int, int]
    history: Tensor
    target: Tensor | None = None
    given: Tensor | None = None

    @property
    def cells(self) -> tuple[slice, slice, slice]:
        """The box of cells."""
        sizes = self.history.shape[2:]
        z, y, x = (slice(first, first + size) for first, size in zip(self.start, sizes, strict=True))
        return z, y, x


@dataclass(frozen=True)
class BatchPart:
    """The part of a batch that one of the ranks that share it has read.

    Attributes:
        samples: description of all samples of the batch.
        pieces: the values that were read.
        has_target: whether there are targets.
        num_given: number of frames of the given fields; 1 where all are constant in time, 0 without any.
    """

    samples: Samples
    pieces: tuple[Piece, ...]
    has_target: bool = True
    num_given: int = 0

    def without_targets(self) -> BatchPart:
        """Return what was read without the targets."""
        return replace(self, pieces=tuple(replace(piece, target=None) for piece in self.pieces), has_target=False)

    def at_lead(self, lead: int) -> BatchPart:
        """Return the same for a prediction so many snapshots ahead."""
        lead_time = self.samples.lead_time
        return replace(self, samples=replace(self.samples, lead_time=lead_time.new_full(lead_time.shape, lead)))
