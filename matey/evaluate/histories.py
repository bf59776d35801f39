"""The histories of a rollout as a rank holds them, and sums over all of their cells, also those that other ranks hold.

    whole fields, on the model's device        a box of cells, on the host, with a halo around it
    .-----------------------------.            .-----------------------------.
    |                             |            |            :   rank 1   :   |
    |           rank 0            |            |   rank 0   |............|...|
    |                             |            |            :   rank 2   :   |
    '-----------------------------'            '-----------------------------'

A rollout and what it keeps are written once for both, see `matey.evaluate.rollout`. Axis legend: that of `matey.fields`, and
``k`` for the samples of which this rank has cells; of whole fields these are all, ``b``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import Protocol, TypeGuard

import torch
from torch import Tensor

from matey.fields import BatchPart, Box, FieldBatch, Samples, has_gaps
from matey.metrics import CELLS
from matey.model.boxes import Cut
from matey.model.forecast import hold, inside, moved_on, surrounded
from matey.model.matey import MateyModel
from matey.model.prepare import Prepared, prepare_parts
from matey.model.sequence_group import SequenceGroup


class Forecaster(Protocol):
    """A model that predicts frames: a `MateyModel`, or one of its peers."""

    @property
    def device(self) -> torch.device:
        """The device of the model's weights."""

    def predict(self, batch: FieldBatch) -> Tensor:
        """Return the frame ``(b, f, z, y, x)`` at the batch's lead times, in physical units."""


def has_tokens(model: Forecaster) -> TypeGuard[MateyModel]:
    """Return whether a model has tokens; peers and the network `cells` have none."""
    return isinstance(model, MateyModel) and model.config.has_tokens


def num_sharing(model: Forecaster) -> int:
    """Return the number of ranks that forecast together, each with a part of the fields."""
    return model.sequence_group.size if isinstance(model, MateyModel) else 1


AT_ONCE = 2**18  # number of cells whose sums are taken at once


def described(samples: Samples, own: slice, spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> FieldBatch:
    """Return a description of some samples: all but their values, which are zeros and take no memory.

    Of no samples it is that of the first one. Conserved quantities do not depend on the spacing.
    """
    own = own if own.stop > own.start else slice(0, 1)
    lead_time = samples.lead_time[own]
    zeros = torch.zeros(len(lead_time), 1, len(samples.fields), 1, 1, 1, device=lead_time.device)
    of_a_cell = FieldBatch(
        samples.system,
        samples.fields,
        zeros,
        lead_time,
        spacing=spacing,
        periodic=samples.periodic,
        parameters={name: of_samples[own] for name, of_samples in samples.parameters.items()},
        conserved=samples.conserved,
    )
    return of_a_cell.with_tensors(history=zeros.expand(-1, -1, -1, *samples.window[1:]))  # a new batch reads all values


@dataclass(frozen=True)
class OwnCells:
    """The cells of a batch that a rank holds.

    Attributes:
        about: description of the samples that it has cells of.
        number: number of all samples.
        own: the samples that it has cells of.
        group: the ranks that hold the other cells; None if there are none.
        counts: numbers ``(b, f)`` of the cells of a whole field that hold data; None if all do.
    """

    about: FieldBatch
    number: int
    own: slice
    group: SequenceGroup | None = None
    counts: Tensor | None = None

    def counted(self, frame: Tensor) -> OwnCells:
        """Return the cells with the numbers of those that hold data in a frame ``(k, f, z, y, x)`` in own cells."""
        if self.group is None and not has_gaps(frame):
            return self
        counts = self.summed(lambda slab: (~slab.isnan()).double().sum(dim=CELLS), frame)
        return self if (counts == math.prod(self.about.grid)).all() else replace(self, counts=counts)

    @property
    def num_cells(self) -> Tensor | int:
        """Number of cells of a whole field that hold data."""
        return math.prod(self.about.grid) if self.counts is None else self.counts

    def of_own(self, values: Tensor) -> Tensor:
        """Return values of all samples ``(b, ...)`` for the cells held here, ``(k, ..., 1, 1, 1)``."""
        return values[self.own][..., None, None, None]

    def summed(self, sums_of: Callable[..., Tensor], *frames: Tensor) -> Tensor:
        """Return sums ``(b, ...)`` over all cells of each sample.

        Args:
            sums_of: function of frames in float64, of a few layers of the cells at a time, that returns sums ``(k, ...)``.
            frames: frames ``(k, ..., z, y, x)`` in own cells.
        """
        axis = -3 if frames[0].shape[-3] > 1 else -2
        of_layer = len(frames[0]) * frames[0].shape[-1] * (frames[0].shape[-2] if axis == -3 else 1)
        layers = max(AT_ONCE // max(of_layer, 1), 1)
        slabs = zip(*(frame.split(layers, dim=axis) for frame in frames), strict=True)
        sums = sum((sums_of(*(part.double() for part in slab)) for slab in slabs), torch.zeros((), dtype=torch.float64))
        assert isinstance(sums, Tensor)
        if self.group is None:
            return sums
        of_samples = sums.new_zeros(self.number, *sums.shape[1:])
        of_samples[self.own] = sums
        of_ranks = self.group.exchange.gather(of_samples.flatten(), [of_samples.numel()] * self.group.size)
        return of_ranks.view(self.group.size, *of_samples.shape).sum(dim=0)

    def total(self, values_of: Callable[[Tensor], Tensor], frames: Tensor) -> Tensor:
        """Return sums ``(b, ...)`` over the cells that hold data, of a function of frames that is computed as in `summed`."""
        if self.counts is None:
            return self.summed(lambda slab: values_of(slab).sum(dim=CELLS), frames)
        return self.summed(lambda slab: values_of(slab).nansum(dim=CELLS), frames)

    def size_of(self, values: Tensor) -> Tensor:
        """Return the root mean square ``(b, f)`` of fields ``(k, f, z, y, x)``; squares may overflow float32."""
        return (self.total(torch.square, values) / self.num_cells).sqrt()


class Whole:
    """Histories of whole fields, on the model's device.

    Attributes:
        batch: the histories, without a target.
        cells: the cells held here, which are all.
    """

    def __init__(self, model: Forecaster, batch: FieldBatch) -> None:
        self._model, self.batch = model, batch.to(model.device).with_tensors(target=None)
        own = slice(0, batch.num_samples)
        cells = OwnCells(described(self.batch.samples, own, batch.spacing), batch.num_samples, own)
        self.cells = cells.counted(self.batch.last)

    @property
    def history(self) -> Tensor:
        """The past frames ``(k, t, f, z, y, x)`` in own cells, in physical units."""
        return self.batch.history

    def predict(self, ahead: int) -> Tensor:
        """Return the predicted frame ``(k, f, z, y, x)`` in own cells, ``ahead`` snapshots after the last known one."""
        return self._model.predict(self.batch.with_tensors(lead_time=torch.full_like(self.batch.lead_time, ahead)))

    def moved_on(self, frames: Tensor, num_new: int) -> Whole:
        """Return the histories ``num_new`` snapshots later, from the newest frames ``(k, t, f, z, y, x)`` in own cells."""
        later = copy(self)
        later.batch = self.batch.moved_on(frames.to(self.batch.history), num_new)
        return later


class Boxes:
    """Histories in a rank's box of cells, on the host; all ranks of the model's sequence group must call together.

    Attributes:
        part: the histories in and around the box, see `matey.model.forecast.hold`.
        cells: the cells held here.
    """

    def __init__(
        self, model: MateyModel, part: BatchPart, spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)
    ) -> None:
        self._model, self._group = model, model.sequence_group
        self._prepared: Prepared | None = None
        parts = [part.without_targets()]
        hold(parts, model.config, self._group.ranks)
        (self.part,) = parts
        self._box = Cut.of(part.samples, model.config, self._group.ranks).box
        about, own = part.samples, self._box.samples
        self.cells = OwnCells(described(about, own, spacing), about.number, own, self._group)
        self.cells = self.cells.counted(self.history[:, -1])

    @property
    def of_ranks(self) -> list[list[Box]]:
        """The boxes of cells that each rank holds of each sample."""
        about, config, size = self.part.samples, self._model.config, self._group.size
        boxes = [Cut.of_rank(about, config, rank, size).box for rank in range(size)]
        return [[(sample, box.cells) for sample in range(box.samples.start, box.samples.stop)] for box in boxes]

    @property
    def history(self) -> Tensor:
        """See `Whole.history`."""
        return self.of_own([piece.history for piece in self.part.pieces], self.part.samples.window[0])

    def of_own(self, values: Sequence[Tensor], *leading: int) -> Tensor:
        """Return values ``(*leading, f, z, y, x)`` in the box of each piece in own cells, ``(k, *leading, f, z, y, x)``."""
        about, sides = self.part.samples, [side.stop - side.start for side in self._box.cells]
        if not values:
            return torch.empty(0, *leading, len(about.fields), *sides, dtype=about.dtype)
        own = [inside(*each) for each in zip(self.part.pieces, values, strict=True)]
        return own[0][None] if len(own) == 1 else torch.stack(own)  # one sample, which may be large, is not copied

    def predict(self, ahead: int) -> Tensor:
        """See `Whole.predict`."""
        if self._prepared is None or (ahead > 1 and self.part.num_given > 1):  # given fields at their own time
            group, config = self._group, self._model.config
            prepared = prepare_parts([self.part.at_lead(ahead)], config, group.ranks, group.exchange)
            self._prepared = prepared.to(self._model.device)
        with torch.no_grad():
            (forecast,) = self._model.eval()(self._prepared.at_lead(ahead))
        return forecast.values.to("cpu", self.part.samples.dtype)

    @property
    def num_tokens(self) -> int:
        """Number of tokens of the last forecast, on all ranks together."""
        assert self._prepared is not None, "the model has made a forecast"
        own = torch.tensor([self._prepared.layout.num_tokens])
        return int(self._group.exchange.gather(own, [1] * self._group.size).sum())

    def moved_on(self, frames: Tensor, num_new: int) -> Boxes:
        """See `Whole.moved_on`."""
        self._prepared = None  # releases its memory
        about, config = self.part.samples, self._model.config
        around = surrounded(frames, about, config, self._group.ranks, self._group.exchange)
        later = copy(self)
        later.part = moved_on(self.part, around, num_new)
        return later


Histories = Whole | Boxes
