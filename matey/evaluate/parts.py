"""Scores forecasts of fields that the ranks of a sequence group hold in boxes.

Each rank reads, forecasts and compares its own box of cells, frame by frame. Sums over cells are added over the ranks, so
that all find the same errors. Measures that need neighbouring cells are left out: seams, spectra, divergence.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

import torch
from torch import Tensor

from matey.data.reading import read_parts, read_truth_part
from matey.evaluate.forecaster import Cost, cost_of
from matey.evaluate.held_out import HeldOut
from matey.evaluate.histories import Boxes
from matey.evaluate.records import PERSISTENCE, TRUTH, ErrorSums, Kind, Task
from matey.evaluate.rollout import Rollout
from matey.metrics import CELLS, METRICS, CellSums
from matey.model.boxes import share_of
from matey.model.matey import MateyModel
from matey.physics import Measure, measures_of

LEFT_OUT = (
    "Ranks held parts of the fields: there are no pictures, spectra, seams or divergences, and no numbers of metrics "
    "that a package measures on whole fields."
)


@torch.no_grad()
def score_in_parts(model: MateyModel, data: HeldOut, task: Task, sums: ErrorSums) -> list[Cost]:
    """Make forecasts from windows of the same shape and add their errors to the sums; return the costs of those at a lead."""
    group, windows = model.sequence_group, task.windows
    share = share_of(model.config, group.ranks)
    assert share is not None, "a model whose ranks hold whole fields"
    (part,) = read_parts(data.sets, windows, data.num_frames, share, task.lead)
    targets = [piece.target for piece in part.pieces if piece.target is not None] if task.kind == "lead" else []
    histories = Boxes(model, part, data.about(windows[0]).spacing)
    del part  # of the first histories two frames are kept
    scored, names = ScoredBoxes(histories), data.labels(windows)
    if task.kind == "lead":
        truth, start = histories.of_own(targets), time.perf_counter()
        prepared = histories.prepared(task.lead)
        num_own = torch.tensor([prepared.layout.num_tokens])
        (forecast,) = model.eval()(prepared)
        frame = forecast.values.to("cpu", truth.dtype)
        num_tokens = int(group.exchange.gather(num_own, [1] * group.size).sum())
        cost = cost_of(model, forecast.samples, num_tokens, time.perf_counter() - start)
        scored.add(sums, task.kind, task.lead, frame, truth, names)
        return [cost]
    rolled = Rollout(histories, task.conserve)
    del histories  # so that the first are released as the rollout moves on
    for step, frame in enumerate(rolled.frames(task.lead, task.rollout_lead), start=1):
        assert isinstance(rolled.histories, Boxes)
        read = read_truth_part(data.sets, windows, data.num_frames, step, share)
        truth = rolled.histories.of_own([piece.history[0] for piece in read.pieces])
        scored.add(sums, task.kind, step, frame, truth, names)
    return []


class ScoredBoxes:
    """Scores forecasts in a rank's box of cells; it keeps the last two frames of the histories there."""

    def __init__(self, histories: Boxes) -> None:
        self._samples, self._cells = histories.part.samples, histories.cells
        newest = histories.history[:, -2:].clone()
        self._before, self._last = newest[:, 0], newest[:, -1]  # of a single frame, the last again

    def add(
        self, sums: ErrorSums, kind: Kind, lead: int, frame: Tensor, truth: Tensor, trajectories: Sequence[str]
    ) -> None:
        """Add the errors of a frame ``(k, f, z, y, x)`` in own cells, and those of the baselines."""
        extrapolated = self._last + lead * (self._last - self._before)
        found = self._cell_sums(frame, self._last, extrapolated, truth)  # (3, b, f)
        errors: dict[str, Tensor] = {}
        for name, metric in METRICS.items():
            of_all = torch.full_like(found.error, math.nan) if metric.of_sums is None else metric.of_sums(found)
            errors[name], errors[PERSISTENCE + name], of_extrapolation = of_all
            if name == "nrmse":
                extrapolation = of_extrapolation
        sums.add_found(self._samples, kind, lead, errors, extrapolation, self._physics(frame, truth), trajectories)

    def _cell_sums(self, *frames: Tensor) -> CellSums:
        """Return the sums ``(g, b, f)`` over all cells of several guesses of the same frame, and of the truth, the last one."""
        cells, num_guesses = self._cells, len(frames) - 1
        totals = cells.summed(lambda *slabs: torch.stack([slab.sum(dim=CELLS) for slab in slabs], dim=1), *frames)
        means = cells.of_own(totals / cells.num_cells)  # (k, g + 1, f, 1, 1, 1)

        def sums_of(*slabs: Tensor) -> Tensor:
            values = torch.stack(slabs, dim=1)
            off = values - means
            products = (values[:, :-1] - values[:, -1:]).square(), off[:, :-1].square(), off[:, :-1] * off[:, -1:]
            return torch.cat([*products, values[:, -1:].square(), off[:, -1:].square()], dim=1).sum(dim=CELLS)

        found = cells.summed(sums_of, *frames).transpose(0, 1)  # (s, b, f)
        error, deviation, product = found[:-2].unflatten(0, (3, num_guesses))
        return CellSums(cells.num_cells, error, found[-2], deviation, found[-1], product)

    def _physics(self, frame: Tensor, truth: Tensor) -> dict[str, Tensor]:
        """Return the numbers ``(b,)`` of the measures that need each cell alone, by name, as `numbers_of` does."""
        about, numbers = self._cells.about, dict[str, Tensor]()
        for name, measure in measures_of(about):
            if not measure.is_of_cells or measure.sums(about.last[..., :1, :1, :1], about) is None:
                continue

            def sums_of(*slabs: Tensor, measure: Measure = measure) -> Tensor:
                of_slabs = [measure.sums(slab, about) for slab in slabs]
                return torch.stack([sums for sums in of_slabs if sums is not None], dim=1).double()

            ours, true, before = self._cells.summed(sums_of, frame, truth, self._last).unbind(1)
            numbers[name], numbers[TRUTH + name] = measure.value(ours, before), measure.value(true, before)
        return numbers
