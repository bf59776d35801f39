"""Descriptions of a batch's samples without their values, and the boxes of values that one rank has read.

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
        parameters: physical parameters by name: ``(b,)``, NaN for a sample with an unknown value.
        conserved: fields whose sum over the domain is conserved, see `matey.fields.FieldBatch`.
        order: the axes ``z, y, x``, as 0, 1 and 2, from the slowest to the fastest of the file of the first sample.
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
    conserved: tuple[str, ...] = ()
    order: tuple[int, int, int] = (0, 1, 2)

    @property
    def number(self) -> int:
        """Number of samples ``b``."""
        return len(self.lead_time)


Box = tuple[int, tuple[slice, slice, slice]]
"""A sample's index, and a box of cells along ``z, y, x``; a box that ends beyond a periodic axis goes on at its other side."""


@dataclass(frozen=True)
class Piece:
    """Values in a box of cells of one sample.

    Attributes:
        sample: index of the sample in its batch.
        start: first cell of the box along ``z, y, x``. A box that ends beyond a periodic axis goes on at its other side.
        history: ``(t, f, z, y, x)``, the past frames in physical units.
        target: ``(f, z, y, x)``, the frame to predict; None where there is none to compare with.
        given: ``(t, f, z, y, x)``, fields that are known and not predicted, see `matey.fields.FieldBatch`, or None.
        own: the cells ``z, y, x`` of the box that the rank holds, where it only looks at those around them; else None.
    """

    sample: int
    start: tuple[int, int, int]
    history: Tensor
    target: Tensor | None = None
    given: Tensor | None = None
    own: tuple[slice, ...] | None = None

    @property
    def cells(self) -> tuple[slice, slice, slice]:
        """The box of cells."""
        sizes = self.history.shape[2:]
        z, y, x = (slice(first, first + size) for first, size in zip(self.start, sizes, strict=True))
        return z, y, x


@dataclass(frozen=True)
class BatchPart:
    """The part of a batch that one rank of a group has read.

    Attributes:
        samples: description of all samples of the batch.
        pieces: the values that were read.
        has_target: whether there are targets.
        num_given: number of frames of the given fields; 1 if all are constant in time, 0 if there are none.
    """

    samples: Samples
    pieces: tuple[Piece, ...]
    has_target: bool = True
    num_given: int = 0

    def without_targets(self) -> BatchPart:
        """Return the same part without the targets."""
        return replace(self, pieces=tuple(replace(piece, target=None) for piece in self.pieces), has_target=False)

    def at_lead(self, lead: int) -> BatchPart:
        """Return the same part with a lead time of ``lead`` snapshots."""
        lead_time = self.samples.lead_time
        return replace(self, samples=replace(self.samples, lead_time=lead_time.new_full(lead_time.shape, lead)))
