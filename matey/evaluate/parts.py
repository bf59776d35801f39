"""Scores forecasts of fields that the ranks of a sequence group hold in parts.

Each rank reads, forecasts and compares its own boxes of cells, frame by frame. Sums over cells are added over the ranks, so
that all find the same errors. Measures that need neighbouring cells are left out: seams, spectra, divergence.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from matey.data import Trajectory, Window
from matey.data.reading import ShareOut, read_parts, read_truth_part
from matey.data.windows import alike
from matey.evaluate.conservation import Totals, num_components, one_of, shifted, shifts, sums_of
from matey.evaluate.forecaster import BatchCost, batch_cost
from matey.evaluate.held_out import HeldOut
from matey.evaluate.records import PERSISTENCE, TRUTH, ErrorSums, Kind
from matey.evaluate.rollout import largest_after, largest_of
from matey.fields import FieldBatch
from matey.metrics import CELLS, METRICS, CellSums
from matey.model.boxes import share_of
from matey.model.forecast import Frames, hold, inside, moved_on, next_frames
from matey.model.matey import MateyModel
from matey.model.prepare import prepare_parts
from matey.model.sequence_group import Exchange, SequenceGroup
from matey.physics import Measure, measures_of
from matey.samples import BatchPart

NOTHING = torch.zeros((), dtype=torch.float64)
LEFT_OUT = (
    "Ranks held parts of the fields: there are no pictures, spectra, seams, divergences nor anything beyond the truth, and no "
    "numbers of metrics that a package measures on whole fields."
)


@torch.no_grad()
def score_leads_in_parts(
    model: MateyModel, data: HeldOut, windows: Sequence[Window], lead: int, sums: ErrorSums
) -> list[BatchCost]:
    """Forecast at a lead from some windows and add the errors to the sums; return the costs."""
    model.eval()
    group, costs = model.sequence_group, []
    for together, part in _parts(model, data, windows, lead):
        truth = [piece.target for piece in part.pieces if piece.target is not None]
        scored, start = ScoredPart(part, _abouts(data, together), group), time.perf_counter()
        parts = [part.without_targets()]
        del part  # two frames of its histories are kept; `prepare_parts` releases the others
        prepared = prepare_parts(parts, model.config, group.ranks, group.exchange).to(model.device)
        num_own = torch.tensor([prepared.layout.num_tokens])
        forecasts = model(prepared)
        del prepared
        (frames,) = next_frames(forecasts, [scored.part], model.config, group.ranks, group.exchange)
        num_tokens = int(group.exchange.gather(num_own, [1] * group.size).sum())
        costs.append(batch_cost(model, scored.part.samples, num_tokens, time.perf_counter() - start))
        scored.add(sums, "lead", lead, frames, truth)
        del forecasts, frames, truth, scored  # releases memory before the next ones are read
    return costs


def score_rollout_in_parts(
    model: MateyModel,
    data: HeldOut,
    windows: Sequence[Window],
    kind: Kind,
    num_steps: int,
    lead: int,
    conserve: bool,
    sums: ErrorSums,
) -> None:
    """Roll out from some windows in steps of ``lead`` snapshots and add the errors to the sums."""
    group, share = model.sequence_group, _share(model)
    for together, part in _parts(model, data, windows, num_steps):
        scored = ScoredPart(part, _abouts(data, together), group)
        totals = totals_of_part(part, group.exchange, group.size) if conserve else None
        frames_of_steps = rollout_parts(model, part.without_targets(), num_steps, lead, totals=totals)
        del part
        for step, frames in enumerate(frames_of_steps, start=1):
            truth = [read_truth_part(data.sets, together, data.num_frames, step, share)]
            hold(truth, model.config, group.ranks)
            scored.add(sums, kind, step, frames, [piece.history[0] for piece in truth[0].pieces])


def _parts(
    model: MateyModel, data: HeldOut, windows: Sequence[Window], follow: int
) -> Iterator[tuple[Sequence[Window], BatchPart]]:
    """Yield windows of the same shape and this rank's part of them, with given fields up to ``follow`` frames ahead."""
    group, share = model.sequence_group, _share(model)
    for together in alike(data.sets, windows):
        # No name is left here, so that the caller decides how long the part stays in memory.
        parts = read_parts(data.sets, together, data.num_frames, share, follow)
        hold(parts, model.config, group.ranks)
        yield together, parts.pop()


def _share(model: MateyModel) -> ShareOut:
    share = share_of(model.config, model.sequence_group.ranks)
    assert share is not None, "a model whose ranks hold whole fields"
    return share


def _abouts(data: HeldOut, windows: Sequence[Window]) -> list[Trajectory]:
    return [data.sets[window.set_index].trajectories[window.trajectory] for window in windows]


class ScoredPart:
    """Scores forecasts on one rank's part of the cells; it holds the last two frames of the histories there.

    Attributes:
        part: the part.
    """

    def __init__(self, part: BatchPart, abouts: Sequence[Trajectory], group: SequenceGroup) -> None:
        pieces = (replace(piece, history=piece.history[-2:].clone(), target=None, given=None) for piece in part.pieces)
        self.part = replace(part, pieces=tuple(pieces), has_target=False, num_given=0)
        self._abouts, self._group = abouts, group

    def add(self, sums: ErrorSums, kind: Kind, lead: int, frames: Frames, truth: Frames) -> None:
        """Add the errors of a frame ``(f, z, y, x)`` in the box of each piece, and those of the baselines."""
        about = self.part.samples
        frames, truth, last = map(self._inside, (frames, truth, [piece.history[-1] for piece in self.part.pieces]))
        before = self._inside([piece.history[0] for piece in self.part.pieces])  # of a single frame, the last again
        extrapolated = [now + lead * (now - then) for now, then in zip(last, before, strict=True)]
        found = self._cell_sums((frames, last, extrapolated), truth)  # (3, b, f)
        errors: dict[str, Tensor] = {}
        for name, metric in METRICS.items():
            of_all = torch.full_like(found.error, math.nan) if metric.of_sums is None else metric.of_sums(found)
            errors[name], errors[PERSISTENCE + name], extrapolation = of_all
            if name == "nrmse":
                of_extrapolation = extrapolation
        names = [each.label for each in self._abouts]
        sums.add_found(about, kind, lead, errors, of_extrapolation, self._physics(frames, truth, last), names)

    def _inside(self, frames: Frames) -> Frames:
        return [inside(*each) for each in zip(self.part.pieces, frames, strict=True)]

    def _added_up(self, of_pieces: Sequence[Tensor], *shape: int) -> Tensor:
        return added_up(self.part, of_pieces, shape, self._group.exchange, self._group.size)

    def _cell_sums(self, guesses: Sequence[Frames], truth: Frames) -> CellSums:
        """Return the sums ``(g, b, f)`` over cells of several guesses of the same frame, from own boxes within the domain."""
        about, num_fields = self.part.samples, len(self.part.samples.fields)
        num_cells, num_sums = math.prod(about.window[1:]), 3 * len(guesses) + 2
        of_pieces = list(zip(*guesses, truth, strict=True))
        totals = [sum((slab.sum(dim=CELLS) for slab in slabs(of_piece)), NOTHING) for of_piece in of_pieces]
        means = self._added_up(totals, len(guesses) + 1, num_fields) / num_cells

        def sums_of(values: Tensor, mean: Tensor) -> Tensor:
            """Return sums ``(s, f)`` of values ``(g + 1, f, z, y, x)``, the truth last."""
            off = values - mean[..., None, None, None]
            products = (values[:-1] - values[-1]).square(), off[:-1].square(), off[:-1] * off[-1]
            of_truth = torch.stack([values[-1].square(), off[-1].square()]).sum(dim=CELLS)
            return torch.cat([*(each.sum(dim=CELLS) for each in products), of_truth])

        sums = [
            sum((sums_of(slab, means[piece.sample]) for slab in slabs(of_piece)), NOTHING)
            for piece, of_piece in zip(self.part.pieces, of_pieces, strict=True)
        ]
        found = self._added_up(sums, num_sums, num_fields).transpose(0, 1)  # (s, b, f)
        error, deviation, product = found[:-2].unflatten(0, (3, len(guesses)))
        return CellSums(num_cells, error, found[-2], deviation, found[-1], product)

    def _physics(self, frames: Frames, truth: Frames, last: Frames) -> dict[str, Tensor]:
        """Return the numbers ``(b,)`` of the measures that need each cell alone, by name, as `numbers_of` does."""
        about = self.part.samples
        batches = [self._batch(sample) for sample in range(about.number)]
        measures: dict[str, tuple[Measure, int]] = {}
        for name, measure in measures_of(batches[0]):
            if measure.is_of_cells:
                like = measure.sums(torch.zeros(1, len(about.fields), 1, 1, 1), batches[0])
                if like is not None:
                    measures[name] = measure, like.shape[1]
        if not measures:
            return {}
        widths = [width for _, width in measures.values()]

        def sums_of(slab: Tensor, batch: FieldBatch) -> Tensor:
            """Return sums ``(g, k)`` of all measures over the cells of frames ``(g, f, z, y, x)``."""
            rows = []
            for frame in slab:
                each = [measure.sums(frame[None], batch) for measure, _ in measures.values()]
                rows.append(torch.cat([of_measure for of_measure in each if of_measure is not None], dim=1).double())
            return torch.cat(rows)

        own = [
            sum((sums_of(slab, batches[piece.sample]) for slab in slabs(of_piece)), NOTHING)
            for piece, *of_piece in zip(self.part.pieces, frames, truth, last, strict=True)
        ]
        found = self._added_up(own, 3, sum(widths)).split(widths, dim=2)  # each (b, 3, k)
        numbers = {}
        for (name, (measure, _)), of_measure in zip(measures.items(), found, strict=True):
            ours, true, before = of_measure.unbind(1)
            numbers[name], numbers[TRUTH + name] = measure.value(ours, before), measure.value(true, before)
        return numbers

    def _batch(self, sample: int) -> FieldBatch:
        return one_of(self.part.samples, sample, self._abouts[sample].spacing)


AT_ONCE = 2**18  # number of cells whose sums are taken at once


@torch.no_grad()
def rollout_parts(
    model: MateyModel,
    part: BatchPart,
    num_steps: int,
    lead: int = 1,
    *,
    largest: Tensor | None = None,
    totals: Totals | None = None,
) -> Iterator[Frames]:
    """Predict ``num_steps`` consecutive frames; all ranks of the model's sequence group must iterate together.

    Args:
        model: the model, whose sequence group has several ranks.
        part: this rank's part of the histories.
        num_steps: number of frames.
        lead: number of frames that are predicted from the same history.
        largest: the largest changes so far, see `matey.evaluate.rollout.rollout`.
        totals: totals that every frame keeps, see `totals_of_part`; by default none.

    Yields:
        The frame ``(f, z, y, x)`` in the box of each piece, in physical units, on the host.
    """
    model.eval()
    group = model.sequence_group
    ranks, exchange = group.ranks, group.exchange
    largest = largest_change_of(part, exchange, ranks.size) if largest is None else largest
    for first in range(0, num_steps, lead):
        prepared = prepare_parts([part.at_lead(1)], model.config, ranks, exchange).to(model.device)
        frames: list[Frames] = []
        for ahead in range(1, min(lead, num_steps - first) + 1):
            if ahead > 1 and part.num_given > 1:  # each frame needs the given fields at its own time
                prepared = prepare_parts([part.at_lead(ahead)], model.config, ranks, exchange).to(model.device)
            (frame,) = next_frames(model(prepared.at_lead(ahead)), [part], model.config, ranks, exchange)
            frame, after = _limited(frame, part, ahead, largest, exchange, ranks.size)
            if totals:
                frame = _kept(frame, part, totals, exchange, ranks.size)
                sizes = sizes_of(_changes(frame, part), part, exchange, ranks.size)
                after = largest_after(largest, sizes, ahead)
            largest = after
            frames.append(frame)
            yield frame
        del prepared
        part = moved_on(part, [torch.stack(of_piece) for of_piece in zip(*frames, strict=True)], len(frames))


def largest_change_of(part: BatchPart, exchange: Exchange, num_ranks: int) -> Tensor:
    """Return the largest change ``(b, f)`` that a rollout may make, see `matey.evaluate.rollout.largest_change`."""
    about, num_frames = part.samples, part.samples.window[0]
    histories = [inside(piece, piece.history) for piece in part.pieces]
    changes = torch.full((about.number, len(about.fields)), torch.inf, dtype=torch.float64)
    if num_frames > 1:
        squares = [
            torch.stack([_squares(frame - before) for before, frame in zip(h, h[1:], strict=False)]) for h in histories
        ]
        changes = _means(part, squares, num_frames - 1, exchange, num_ranks).sqrt().amax(dim=1)
    own = [h.double().sum(dim=(2, 3, 4)) for h in histories]
    mean = _means(part, own, num_frames, exchange, num_ranks).mean(dim=1)
    off = [
        torch.stack([_squares(frame - mean[piece.sample, :, None, None, None]) for frame in h])
        for piece, h in zip(part.pieces, histories, strict=True)
    ]
    deviation = _means(part, off, num_frames, exchange, num_ranks).mean(dim=1).sqrt()
    return largest_of(changes, mean, deviation)


def sizes_of(changes: Frames, part: BatchPart, exchange: Exchange, num_ranks: int) -> Tensor:
    """Return the root mean square ``(b, f)`` over all cells of changes ``(f, z, y, x)`` in the box of each piece."""
    own = [_squares(inside(piece, of))[None] for piece, of in zip(part.pieces, changes, strict=True)]
    return _means(part, own, 1, exchange, num_ranks)[:, 0].sqrt()


def _limited(
    frames: Frames, part: BatchPart, ahead: int, largest: Tensor, exchange: Exchange, num_ranks: int
) -> tuple[Frames, Tensor]:
    """Scale changes down to the largest ones, see `matey.evaluate.rollout.limited`."""
    changes = _changes(frames, part)
    sizes = sizes_of(changes, part, exchange, num_ranks)
    largest = largest_after(largest, sizes, ahead)
    share = ahead * largest / sizes
    found = []
    for frame, change, piece in zip(frames, changes, part.pieces, strict=True):
        factor = share[piece.sample, :, None, None, None]
        found.append(frame.where(factor >= 1, piece.history[-1] + factor.to(change.dtype) * change))
    return found, largest


def _changes(frames: Frames, part: BatchPart) -> Frames:
    return [frame - piece.history[-1] for frame, piece in zip(frames, part.pieces, strict=True)]


def totals_of_part(part: BatchPart, exchange: Exchange, num_ranks: int) -> Totals:
    """Return the totals of the last known frame over all cells, see `matey.evaluate.conservation.totals_of`."""
    last = [inside(piece, piece.history[-1]) for piece in part.pieces]
    totals = {}
    for name, width in num_components(one_of(part.samples)).items():
        _, sums = _sums_of(name, last, part, width, exchange, num_ranks)
        totals[name] = sums[:, :width]
    return totals


def _kept(frames: Frames, part: BatchPart, totals: Totals, exchange: Exchange, num_ranks: int) -> Frames:
    """Shift frames so that they have the totals, see `matey.evaluate.conservation.kept`."""
    for name, total in totals.items():
        own = [inside(piece, frame) for piece, frame in zip(part.pieces, frames, strict=True)]
        fields, sums = _sums_of(name, own, part, total.shape[1], exchange, num_ranks)
        shift = shifts(total, sums)
        frames = [
            shifted(frame[None], fields, shift[[piece.sample]])[0]
            for piece, frame in zip(part.pieces, frames, strict=True)
        ]
    return frames


def _sums_of(
    name: str, own: Frames, part: BatchPart, width: int, exchange: Exchange, num_ranks: int
) -> tuple[list[int], Tensor]:
    """Return the sums of a quantity over all cells, see `matey.evaluate.conservation.sums_of`."""
    fields, sums = list[int](), list[Tensor]()
    for piece, frame in zip(part.pieces, own, strict=True):
        about = one_of(part.samples, piece.sample)
        sums.append(torch.zeros(2 * width, dtype=torch.float64))
        for slab in slabs([frame]):
            fields, of_slab = sums_of(name, slab, about)
            sums[-1] += of_slab[0]
    return fields, added_up(part, sums, (2 * width,), exchange, num_ranks)


def slabs(frames: Sequence[Tensor]) -> Iterator[Tensor]:
    """Yield several frames ``(f, z, y, x)`` of a box stacked, ``(g, f, z, y, x)`` in float64, a few layers at a time."""
    axis = 1 if frames[0].shape[1] > 1 else 2
    layers = max(AT_ONCE // frames[0].narrow(axis, 0, 1)[0].numel(), 1)
    for of_all in zip(*(frame.split(layers, dim=axis) for frame in frames), strict=True):
        yield torch.stack(of_all).double()


def _squares(values: Tensor) -> Tensor:
    """Return the sum of squares ``(f,)`` of ``(f, z, y, x)``; squares may overflow float32."""
    return values.double().square().sum(dim=(1, 2, 3))


def added_up(
    part: BatchPart, sums: Sequence[Tensor], shape: Sequence[int], exchange: Exchange, num_ranks: int
) -> Tensor:
    """Return sums over all cells of each sample, ``(b, *shape)``, from those of this shape over the cells of each own piece."""
    of_samples = torch.zeros(part.samples.number, *shape, dtype=torch.float64)
    for piece, of_piece in zip(part.pieces, sums, strict=True):
        of_samples[piece.sample] += of_piece
    of_ranks = exchange.gather(of_samples.flatten(), [of_samples.numel()] * num_ranks)
    return of_ranks.view(num_ranks, *of_samples.shape).sum(dim=0)


def _means(part: BatchPart, sums: Sequence[Tensor], num_frames: int, exchange: Exchange, num_ranks: int) -> Tensor:
    """Return means over all cells of each sample, ``(b, t, f)``, from sums ``(t, f)`` over the cells of each own piece."""
    about = part.samples
    total = added_up(part, sums, (num_frames, len(about.fields)), exchange, num_ranks)
    return total / math.prod(about.window[1:])
