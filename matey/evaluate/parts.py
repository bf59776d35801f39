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
from matey.evaluate.conservation import one_of
from matey.evaluate.costs import BatchCost, batch_cost
from matey.evaluate.held_out import HeldOut
from matey.evaluate.physics import TRUTH
from matey.evaluate.records import PERSISTENCE, ErrorSums, Kind
from matey.evaluate.rollout_parts import added_up, rollout_parts, slabs, totals_of_part
from matey.fields import FieldBatch
from matey.metrics import CELLS, METRICS, CellSums
from matey.model.boxes import share_of
from matey.model.forecast import Frames, hold, inside, next_frames
from matey.model.matey import MateyModel
from matey.model.prepare import prepare_parts
from matey.model.sequence_group import SequenceGroup
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
