"""The numbers of an evaluation: one record per system, field, kind of forecast and lead, and their file."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from dataclasses import field as attribute
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from matey.checkpoints.run_files import replace_text
from matey.data import Window
from matey.data.trajectories import ALL_FIELDS
from matey.evaluate.histories import OwnCells, described
from matey.fields import FieldBatch, Samples, without_gaps
from matey.metrics import CELLS, METRICS, NRMSE_EPSILON, CellSums
from matey.physics import MEASURES, Measure, measures_of
from matey.tokens.layout import TokenLayout
from matey.tokens.patches import Patch, cover, patch_grid, unpatchify

Kind = str
"""``lead``, ``rollout``, or ``rollout by N``, see `Record`."""

PERSISTENCE = "persistence_"
"""Prefix of the names of persistence's errors."""
Key = tuple[str, str, Kind, int]
"""System, field, kind and lead of a record."""


@dataclass(frozen=True)
class Record:
    """Mean errors over all windows of one system.

    Attributes:
        system: name of the PDE system.
        field: name of the field, or ``all`` for the mean over the fields.
        kind: ``lead``, predicted in one step; ``rollout``, in steps of one snapshot; or ``rollout by N``, in steps of ``N``
            snapshots, with the frames in between predicted from the same histories.
        lead: number of snapshots from the last frame of the history to the target.
        errors: the model's error in each metric of `matey.metrics.METRICS`, by name.
        persistence: the same errors of persistence, which predicts the last frame again.
        num_windows: number of windows in the means.
        seams: mean jump of the error across the borders of patches over the mean jump inside patches; at 1 no patches are
            visible. NaN for rollouts, and without borders or errors.
        extrapolation_vrmse: VRMSE of linear extrapolation, the last frame plus ``lead`` times its last change.
        best_trajectory: mean VRMSE over the windows of the trajectory with the smallest; NaN if trajectories were not
            recorded.
        worst_trajectory: mean VRMSE over the windows of the trajectory with the largest.
        worst: name of the latter trajectory; empty if trajectories were not recorded.
        physics: measures of `matey.physics` that the system has, if ``field`` is ``all``: the forecast's by name, the truth's
            with the prefix ``truth_``; at the last step of a rollout also ``correlation_time``, and persistence's with the
            prefix ``persistence_``, see `matey.evaluate.records.correlation_time`.
        conserve: whether it is of a rollout that was to keep the totals of what the system is known to conserve.
        tokens_worth: VRMSE with what tokens contribute at zero over that with it; NaN for a model without tokens and for
            rollouts in steps of one snapshot, which are not made twice.
    """

    system: str
    field: str
    kind: Kind
    lead: int
    errors: Mapping[str, float]
    persistence: Mapping[str, float]
    num_windows: int
    seams: float = math.nan
    extrapolation_vrmse: float = attribute(kw_only=True)
    best_trajectory: float = math.nan
    worst_trajectory: float = math.nan
    worst: str = ""
    physics: Mapping[str, float] = attribute(default_factory=dict)
    conserve: bool = False
    tokens_worth: float = math.nan

    @property
    def key(self) -> Key:
        """System, field, kind and lead."""
        return self.system, self.field, self.kind, self.lead

    @property
    def is_rollout(self) -> bool:
        """Whether the model continued from its own predictions."""
        return self.kind != "lead"

    @property
    def vrmse(self) -> float:
        """VRMSE of the model; unlike the NRMSE, its mean counts a field alike whatever its mean and unit."""
        return self.errors["vrmse"]

    @property
    def persistence_vrmse(self) -> float:
        """VRMSE of persistence."""
        return self.persistence["vrmse"]

    @property
    def ratio(self) -> float:
        """VRMSE of the model divided by that of persistence; below 1 the model is better than repeating the last frame."""
        return quotient(self.vrmse, self.persistence_vrmse)


def quotient(error: float, other: float) -> float:
    """Return an error over another, 1 for two exact forecasts.

    >>> quotient(0.1, 0.4), quotient(0.1, 0), quotient(0, 0)
    (0.25, inf, 1.0)
    """
    if other == 0:
        return 1.0 if error == 0 else math.inf
    return error / other


def with_tokens_worth(records: Sequence[Record], without: Sequence[Record]) -> list[Record]:
    """Return records with the tokens' worth, from those of some of the forecasts without what tokens contribute."""
    errors = {record.key: record.vrmse for record in without}
    worth = [quotient(errors.get(record.key, math.nan), record.vrmse) for record in records]
    return [replace(record, tokens_worth=each) for record, each in zip(records, worth, strict=True)]


def rollout_kind(lead: int) -> Kind:
    """Return the kind of a rollout in steps of ``lead`` snapshots."""
    return "rollout" if lead == 1 else f"rollout by {lead}"


@dataclass(frozen=True)
class Task:
    """Forecasts of one kind from the windows of one data set.

    Attributes:
        kind: kind of forecast, see `Record`.
        lead: number of snapshots to the target, or to the end of a rollout.
        windows: the windows to start from.
        rollout_lead: number of snapshots in a step of a rollout.
        conserve: see `matey.evaluate.evaluation.Protocol`.
    """

    kind: Kind
    lead: int
    windows: tuple[Window, ...]
    rollout_lead: int = 1
    conserve: bool = False

    @property
    def num_forecasts(self) -> int:
        """Number of frames that the model predicts."""
        return len(self.windows) * (1 if self.kind == "lead" else self.lead)


class ErrorSums:
    """Sums errors of the model, persistence and extrapolation batch by batch."""

    def __init__(self) -> None:
        """Start with no windows.

        Raises:
            RegistryError: a package's metric or measure cannot be used.
        """
        dict(METRICS.items()), dict(MEASURES.items())  # import errors appear here, not after the first forecasts
        self._sums: dict[Key, Totals] = {}

    def add(
        self,
        batch: FieldBatch,
        kind: Kind,
        lead: int,
        prediction: Tensor,
        target: Tensor,
        patch_of_cell: Tensor | None = None,
        trajectories: Sequence[str] = (),
    ) -> None:
        """Add the errors of ``prediction`` at ``lead``, ``(b, f, z, y, x)`` in physical units, and those of the baselines.

        With ``patch_of_cell`` ``(b, z, y, x)``, the jumps at the borders of patches are added too; with the names of the
        samples' trajectories, also the error of each trajectory.
        """
        own = slice(0, batch.num_samples)
        cells = OwnCells(described(batch.samples, own, batch.spacing), batch.num_samples, own)
        newest = batch.history[:, -2:]
        self.add_cells(cells, batch.samples, kind, lead, newest, prediction, target, trajectories, batch, patch_of_cell)

    def add_cells(
        self,
        cells: OwnCells,
        samples: Samples,
        kind: Kind,
        lead: int,
        newest: Tensor,
        frame: Tensor,
        truth: Tensor,
        trajectories: Sequence[str],
        whole: FieldBatch | None = None,
        patch_of_cell: Tensor | None = None,
    ) -> None:
        """Add the errors of a frame in the cells that a rank holds; all ranks that hold the others must call.

        Args:
            cells: the cells.
            samples: all samples of the batch.
            kind: kind of the forecast.
            lead: lead of the forecast.
            newest: the last two frames of the histories ``(k, t, f, z, y, x)`` in own cells, or the only one.
            frame: the predicted frame ``(k, f, z, y, x)``.
            truth: the true frame.
            trajectories: names of the samples' trajectories.
            whole: the histories if the rank holds all cells; else what needs neighbouring cells has no number.
            patch_of_cell: number ``(b, z, y, x)`` of each cell's patch, for the jumps at the borders of patches; None for none.
        """
        last = newest[:, -1]
        guesses = frame, last, last + lead * (last - newest[:, 0])  # of a single frame, the last again
        sums = _cell_sums(cells, guesses, newest[:, 0], truth)
        found = {("", name): torch.full_like(sums.target, math.nan) for name in ("across", "inside")}
        if patch_of_cell is not None:
            # Divided by the target's size, so that jumps can be averaged over the fields.
            size = (sums.target / sums.num_cells).sqrt() + NRMSE_EPSILON
            found |= zip(found, jumps(frame - truth, patch_of_cell) / size, strict=True)
        for name, metric in METRICS.items():
            of_guesses = torch.full_like(sums.error, math.nan)  # (3, b, f)
            if metric.of_sums is not None:
                of_guesses = metric.of_sums(sums)
            elif whole is not None:
                of_guesses = torch.stack([metric.value(guess, truth) for guess in guesses]).double()
            found["errors", name], found["errors", PERSISTENCE + name] = of_guesses[:2]
            if name == "vrmse":
                found["", "extrapolation"] = of_guesses[2]
        of_fields = torch.stack([*found.values()])  # (m, b, f)
        values = (*of_fields.unbind(dim=2), of_fields.mean(dim=2))
        for name, own in zip((*samples.fields, ALL_FIELDS), values, strict=True):
            totals = self._sums.setdefault((samples.system, name, kind, lead), {})
            of_errors = zip(found, own.sum(dim=1).tolist(), strict=True)
            add_up(totals, {key: (total, samples.number) for key, total in of_errors})
            of_samples = own[[*found].index(("errors", "vrmse"))].tolist()
            for trajectory, error in zip(trajectories, of_samples, strict=False):
                add_up(totals, {("trajectories", trajectory): (error, 1)})
        physics = _physics(cells, last, frame, truth, whole)
        add_up(totals, {("physics", name): (each.sum().item(), len(each)) for name, each in physics.items()})

    def merge(self, later: ErrorSums) -> None:
        """Add the sums of windows that come after these."""
        for key, totals in later._sums.items():
            add_up(self._sums.setdefault(key, {}), totals)

    def records(self) -> list[Record]:
        """Return the mean errors, in the order in which their first windows were added."""
        records = []
        for (system, name, kind, lead), totals in self._sums.items():
            means, others = means_of(totals, "errors"), means_of(totals, "")
            records.append(
                Record(
                    system=system,
                    field=name,
                    kind=kind,
                    lead=lead,
                    errors={metric: means[metric] for metric, _ in METRICS.items()},
                    persistence={metric: means[PERSISTENCE + metric] for metric, _ in METRICS.items()},
                    num_windows=totals["errors", "vrmse"][1],
                    seams=others["across"] / others["inside"] if others["inside"] else math.nan,
                    extrapolation_vrmse=others["extrapolation"],
                    **_spread(means_of(totals, "trajectories")),
                    physics=means_of(totals, "physics"),
                )
            )
        return _with_correlation_times(records)


def _with_correlation_times(records: Sequence[Record]) -> list[Record]:
    """Write the correlation times of every system's rollouts into the record of their last step."""
    rollouts: dict[tuple[str, Kind], dict[int, Record]] = {}
    for record in records:
        if record.field == ALL_FIELDS and record.is_rollout:
            rollouts.setdefault((record.system, record.kind), {})[record.lead] = record
    times: dict[Key, dict[str, float]] = {}
    for of_leads in rollouts.values():
        leads = sorted(of_leads)
        own, of_persistence = (
            correlation_time(leads, [getattr(of_leads[lead], whose)["correlation"] for lead in leads])
            for whose in ("errors", "persistence")
        )
        times[of_leads[leads[-1]].key] = {CORRELATION_TIME: own, PERSISTENCE + CORRELATION_TIME: of_persistence}
    return [replace(record, physics={**record.physics, **times.get(record.key, {})}) for record in records]


def _spread(means: dict[str, float]) -> dict[str, Any]:
    """Return the smallest and the largest mean error of a trajectory; errors that are not finite count as the largest."""
    if not means:
        return {}
    ordered = sorted(means, key=lambda name: means[name] if math.isfinite(means[name]) else math.inf)
    return {"best_trajectory": means[ordered[0]], "worst_trajectory": means[ordered[-1]], "worst": ordered[-1]}


def write_records(records: Sequence[Record], path: Path) -> None:
    """Write records as a JSON list; an error that is not finite (a rollout that blew up) becomes null."""
    rows = [_finite(_row(record)) for record in records]
    replace_text(path, json.dumps(rows, indent=1, allow_nan=False) + "\n")


def _finite(value: Any) -> Any:  # noqa: ANN401 (any value of JSON)
    """Replace NaN and infinity, which JSON does not know and most readers refuse, by null, also within mappings."""
    if isinstance(value, Mapping):
        return {name: _finite(each) for name, each in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _row(record: Record) -> dict[str, Any]:
    """Return a record as one flat row; names of persistence's errors have the prefix `PERSISTENCE`."""
    row: dict[str, Any] = {each.name: getattr(record, each.name) for each in fields(record)}
    errors, of_persistence = row.pop("errors"), row.pop("persistence")
    key: dict[str, Any] = {name: row.pop(name) for name in ("system", "field", "kind", "lead")}
    errors = errors | {PERSISTENCE + name: error for name, error in of_persistence.items()}
    return {**key, **errors, **row}


def read_records(path: Path) -> list[Record]:
    """Read a file of `write_records`; null becomes a value that is not finite."""

    def filled(row: dict[str, Any]) -> dict[str, Any]:
        return {name: math.nan if value is None else value for name, value in row.items()}

    known = {each.name for each in fields(Record)}
    records = []
    for row in json.loads(path.read_text(encoding="utf-8"), object_hook=filled):
        of_persistence = {name.removeprefix(PERSISTENCE): row[name] for name in row if name.startswith(PERSISTENCE)}
        errors = {name: row[name] for name in of_persistence}
        rest = {name: value for name, value in row.items() if name in known}
        records.append(Record(errors=errors, persistence=of_persistence, **rest))
    return records


TRUTH = "truth_"
"""Prefix of the names of the truth's numbers."""

LEAST_CORRELATION = 0.8
"""Correlation with the truth below which a rollout counts as lost."""

CORRELATION_TIME = "correlation_time"

Totals = dict[tuple[str, str], tuple[float, int]]
"""Sums by kind (errors, trajectories, physics, none) and name, each with the number of its terms."""


def _cell_sums(cells: OwnCells, guesses: tuple[Tensor, Tensor, Tensor], before: Tensor, truth: Tensor) -> CellSums:
    """Return the sums ``(3, b, f)`` over all cells of guesses of the true frame: the model's, the last frame, extrapolation.

    ``before`` is the frame before the last.
    """
    frames = (*guesses, before, truth)

    def totals_of(*slabs: Tensor) -> Tensor:
        gaps, values = slabs[-1].isnan()[:, None], torch.stack(slabs, dim=1)
        return torch.cat([values.masked_fill(gaps, 0), (~gaps).double()], dim=1).sum(dim=CELLS)

    *totals, num_cells = cells.summed(totals_of, *frames).unbind(1)  # g + 2 times (b, f)
    means = cells.of_own(torch.stack(totals, dim=1) / num_cells[:, None])  # (k, g + 1, f, 1, 1, 1)

    def sums_of(*slabs: Tensor) -> Tensor:
        gaps, values = slabs[-1].isnan()[:, None], torch.stack(slabs, dim=1)
        values, off = values.masked_fill(gaps, 0), (values - means).masked_fill(gaps, 0)
        products = (values[:, :-1] - values[:, -1:]).square(), off[:, :-1].square(), off[:, :-1] * off[:, -1:]
        return torch.cat([*products, values[:, -1:].square(), off[:, -1:].square()], dim=1).sum(dim=CELLS)

    found = cells.summed(sums_of, *frames).transpose(0, 1)  # (s, b, f)
    error, deviation, product = found[:-2].unflatten(0, (3, len(frames) - 1))
    return CellSums(
        num_cells=num_cells,
        error=error[:-1],
        target=found[-2],
        predicted_deviation=deviation[:-1],
        target_deviation=found[-1],
        product=product[:-1],
        known_deviation=deviation[1].maximum(deviation[-1]),
    )


def _physics(
    cells: OwnCells, last: Tensor, frame: Tensor, truth: Tensor, whole: FieldBatch | None
) -> dict[str, Tensor]:
    """Return the measures ``(b,)`` of predicted and true frames by name; of neighbouring cells for whole fields alone."""
    about, numbers = cells.about, dict[str, Tensor]()
    for name, measure in measures_of(about):

        def sums_of(*slabs: Tensor, measure: Measure = measure) -> Tensor:
            of_slabs = [measure.sums(slab, about) for slab in slabs]
            return torch.stack([sums for sums in of_slabs if sums is not None], dim=1).double()

        of_frames: Sequence[Tensor | None] = ()
        if not measure.is_of_cells:
            of_frames = [] if whole is None else [measure.sums(each, whole) for each in (frame, truth, last)]
        elif measure.sums(about.last[..., :1, :1, :1], about) is not None:
            of_frames = cells.summed(sums_of, frame, truth, last).unbind(1)
        if sums := [each for each in of_frames if each is not None]:
            ours, true, before = sums
            numbers[name], numbers[TRUTH + name] = measure.value(ours, before), measure.value(true, before)
    return numbers


def add_up(totals: dict[Any, tuple[Any, int]], more: Mapping[Any, tuple[Any, int]]) -> None:
    """Add other sums, each with the number of its terms, to ``totals`` in place."""
    for name, (total, count) in more.items():
        before, number = totals.get(name, (0.0, 0))
        totals[name] = before + total, number + count


def means_of(totals: Totals, kind: str) -> dict[str, float]:
    """Return the mean of each sum of a kind, by name."""
    return {name: total / count for (own, name), (total, count) in totals.items() if own == kind}


def correlation_time(leads: Sequence[int], correlations: Sequence[float]) -> float:
    """Return after how many snapshots a rollout's mean correlation with the truth falls below `LEAST_CORRELATION`.

    The correlation is interpolated linearly between two snapshots, from 1 at the start.

    Args:
        leads: ascending numbers of snapshots.
        correlations: mean correlation after each; a value that is not finite comes from a rollout that blew up; it counts as 0.

    Returns:
        Number of snapshots; infinity if it never falls below.
    """
    lead_before, before = 0, 1.0
    for lead, correlation in zip(leads, correlations, strict=True):
        now = correlation if math.isfinite(correlation) else 0.0
        if now < LEAST_CORRELATION:
            return lead_before + (lead - lead_before) * (before - LEAST_CORRELATION) / (before - now)
        lead_before, before = lead, now
    return math.inf


def jumps(error: Tensor, patch_of_cell: Tensor) -> Tensor:
    """Average the jumps of an error between neighbouring cells, across borders of patches and inside patches.

    Args:
        error: ``(b, f, z, y, x)``, the error of a prediction.
        patch_of_cell: ``(b, z, y, x)``, number of each cell's patch, see `patches_of_cells`.

    Returns:
        ``(2, b, f)``, mean jump across borders and inside patches, in the unit of the field; NaN without such neighbours. A
        neighbour without data, where the error is NaN, is none.
    """
    sums = error.new_zeros(2, *error.shape[:2])
    counts = torch.zeros_like(sums)
    for axis in (1, 2, 3):
        across = (patch_of_cell.diff(dim=axis) != 0)[:, None]  # (b, 1, z, y, x), one cell fewer along the axis
        jump = error.diff(dim=axis + 1).abs()
        for row, chosen in enumerate((across, ~across)):
            sums[row] += without_gaps(jump * chosen).sum(dim=(2, 3, 4))
            counts[row] += (chosen & ~jump.isnan()).sum(dim=(2, 3, 4))
    return sums / counts


def patches_of_cells(batch: FieldBatch, patches: Sequence[Patch], layout: TokenLayout) -> Tensor:
    """Return the number of the leaf patch around each cell of the last frame, ``(b, z, y, x)``."""
    window = (batch.num_frames, *batch.grid)
    covered = (1, *cover(window, patches[0])[1:])
    z, y, x = batch.grid
    numbers = (_numbers(layout, level, patch, batch, covered) for level, patch in enumerate(patches))
    return torch.stack(list(numbers)).amax(dim=0)[:, :z, :y, :x]


def _numbers(layout: TokenLayout, level: int, patch: Patch, batch: FieldBatch, covered: Sequence[int]) -> Tensor:
    """Return the number of one level's leaf at each of its cells, -1 at all others: ``(b, z, y, x)``."""
    leaf = (layout.is_last & layout.is_leaf & (layout.level == level)).nonzero(as_tuple=True)[0]
    frame_patch = (1, *patch[1:])
    grid = patch_grid(covered, frame_patch)
    canvas = leaf.new_full((batch.num_samples * grid[1] * grid[2] * grid[3],), -1)
    canvas[layout.row[leaf] // (batch.num_frames // patch[0])] = leaf
    cells = canvas[:, None, None, None, None, None].expand(-1, 1, *frame_patch)
    return unpatchify(cells, grid)[:, 0, 0]
