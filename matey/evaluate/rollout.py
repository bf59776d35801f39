"""Rolls a model out: forecasts many snapshots from the model's own predictions.

In steps of one snapshot, every frame is predicted from the frames just before it. In steps of ``lead`` snapshots, the next
``lead`` frames are predicted from the same history, each at its own lead time; then the newest frames become the history:

    lead 1    t0 -> t1 -> t2 -> t3 -> t4 -> t5 -> t6
    lead 3    t0 -> t1,  t0 -> t2,  t0 -> t3;  t3 -> t4,  t3 -> t5,  t3 -> t6

Both give every frame with the same number of forecasts; in the second, errors are passed on ``lead`` times less often.

Far from its training data, a model may amplify its own errors without end. The change of a field from one snapshot to the next
is therefore limited by the changes in the given history or, if these are unknown, by the first change of the rollout itself.
The error then grows at most in proportion to the number of steps.

On request a rollout keeps what the system conserves, by the measures of `matey.physics`: after each forecast, one field is
shifted by a constant for each component of a conserved quantity, so that the component has the total of the last known frame:
the density for mass, then velocities for momentum, then the pressure for energy. Each forecast misses these totals a little;
without the shifts such errors add up, even where the fields themselves decay. Nothing is asked of the model.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from matey.data import TrajectorySet, Window, read_rollout
from matey.data.reading import samples_of
from matey.evaluate.held_out import HeldOut
from matey.evaluate.histories import Forecaster, Histories, OwnCells, Whole, described
from matey.fields import FieldBatch, without_gaps
from matey.model.matey import MateyModel
from matey.physics import CELLS, TOTAL, Measure, fields_of, measures_of
from matey.tokens.layout import TokenLayout
from matey.tokens.tokenize import tokenize

MAX_GROWTH = 4.0
"""Largest ratio of a change to the changes in the history, or to the rollout's first change.

The true ratio, from any frame on, is at most 2.2 in five of the seven systems simulated here, and 3.4 for the velocities of
compressible_rand; for the potential temperature of colliding thermals just released it is up to 10, see `LEAST_SHARE`.
"""

LEAST_SHARE = 0.1
"""Least change that a history counts with, as a share of the field's deviation, since a motion may only be starting."""


def rollout(
    model: Forecaster, batch: FieldBatch, num_steps: int, lead: int = 1, *, conserve: bool = False
) -> Iterator[Tensor]:
    """Predict ``num_steps`` consecutive frames, each one snapshot after the previous one.

    Args:
        model: the model; it predicts a frame from the newest known frames, its own predictions as soon as there are
            any.
        batch: the histories; its lead time and target are ignored. Given fields that vary in time must reach as far as
            the forecast.
        num_steps: number of frames.
        lead: number of frames predicted from the same history, the last of them at this lead time in snapshots. It
            should not exceed the lead times in the model's training.
        conserve: whether every frame keeps the totals of the last known one, see `matey.evaluate.rollout`.

    Yields:
        Frames ``(b, f, z, y, x)`` in physical units, on the model's device.
    """
    yield from Rollout(Whole(model, batch), conserve).frames(num_steps, lead)


class Rollout:
    """A rollout of whole fields, or of those that ranks hold in boxes: all ranks of the sequence group then iterate together.

    Attributes:
        histories: histories from which the next frame is predicted.
        largest: the largest changes ``(b, f)`` per snapshot so far; infinite where they are still unknown.
        totals: totals that every frame keeps; empty for none.
    """

    def __init__(self, histories: Histories, conserve: bool = False) -> None:
        self.histories = histories
        self.largest = largest_change(histories.history, histories.cells)
        self.totals = totals_of(histories.history[:, -1], histories.cells) if conserve else {}

    def go_on(self, frames: Tensor, num_done: int, largest: Tensor) -> None:
        """Go on after ``num_done`` snapshots, from the newest frames ``(k, t, f, z, y, x)`` and the largest changes then."""
        self.histories = self.histories.moved_on(frames, num_done)
        self.largest = largest.to(self.largest)

    def frames(self, num_steps: int, lead: int = 1) -> Iterator[Tensor]:
        """Yield the next frames ``(k, f, z, y, x)`` in own cells, see `rollout`."""
        frames: list[Tensor] = []
        for _ in range(num_steps):
            if len(frames) == lead:
                self.histories = self.histories.moved_on(torch.stack(frames, dim=1), lead)
                frames = []
            frames.append(self._frame(len(frames) + 1))
            yield frames[-1]

    def _frame(self, ahead: int) -> Tensor:
        last, cells = self.histories.history[:, -1], self.histories.cells
        frame, after = limited(self.histories.predict(ahead), last, ahead, self.largest, cells)
        if self.totals:
            frame = kept(frame, cells, self.totals)
            after = largest_after(self.largest, cells.size_of(frame - last), ahead)
        self.largest = after
        return frame


def largest_change(history: Tensor, cells: OwnCells) -> Tensor:
    """Return the root mean square of the largest change from one snapshot to the next that a rollout may make.

    If other fields vary, the size of a constant field counts as its deviation, as for the uniform density and pressure in
    which turbulence begins; if no field varies, no motion is expected.

    Args:
        history: the given frames ``(k, t, f, z, y, x)`` in own cells.
        cells: the own cells.

    Returns:
        ``(b, f)``; infinite (unknown) if the frames do not determine it.
    """
    mean = cells.total(lambda slab: slab, history).mean(dim=1) / cells.num_cells
    around = cells.of_own(mean)[:, None]
    squares = cells.total(lambda slab: (slab - around).square(), history).mean(dim=1)
    changes = torch.full_like(mean, torch.inf)
    if history.shape[1] > 1:
        changes = cells.total(lambda slab: slab.diff(dim=1).square(), history).amax(dim=1)
    deviation = (squares / cells.num_cells).sqrt()
    varies = deviation > 0
    of_constant = LEAST_SHARE * mean.abs().where(varies.any(dim=1, keepdim=True), 0)
    sizes = torch.maximum((changes / cells.num_cells).sqrt(), LEAST_SHARE * deviation).where(varies, of_constant)
    return largest_after(torch.full_like(sizes, torch.inf), sizes, 1)


def largest_after(largest: Tensor, sizes: Tensor, ahead: int) -> Tensor:
    """Return the largest changes ``(b, f)`` per snapshot after one more change, which replaces those unknown (infinite).

    Args:
        largest: the largest changes before, ``(b, f)``.
        sizes: root mean square ``(b, f)`` of the change; zeros are ignored.
        ahead: number of snapshots over which the change was made.
    """
    found = MAX_GROWTH * sizes / ahead
    return largest.where(largest.isfinite() | ~(found > 0), found)


def limited(frame: Tensor, last: Tensor, ahead: int, largest: Tensor, cells: OwnCells) -> tuple[Tensor, Tensor]:
    """Scale the change from the last known frame down to the largest allowed one, in the fields that exceed it.

    Args:
        frame: predicted frame ``(k, f, z, y, x)`` in own cells.
        last: last known frame.
        ahead: number of snapshots between the two frames.
        largest: the largest changes ``(b, f)`` per snapshot.
        cells: the own cells.

    Returns:
        The limited frame, and the largest changes after it.
    """
    change = frame - last
    size = cells.size_of(change)
    largest = largest_after(largest, size, ahead)
    share = cells.of_own(ahead * largest / size)
    return frame.where(share >= 1, last + share.to(change.dtype) * change), largest


MOST_VIEWS = 60  # in all systems together; one picture of a film takes about 100 kB on the report's page
MOST_OF_ONE = 20


@dataclass(frozen=True)
class View:
    """One field of one trajectory at one step.

    Attributes:
        step: number of snapshots after the last known frame; 0 is the last known frame itself.
        time: time in the data or since the trajectory began, in the units of the data set.
        forecast: ``(z, y, x)``, the forecast in physical units.
        truth: ``(z, y, x)``, the truth; None beyond the end of the trajectory.
        layout: the model's tokens for the frames up to this one; None for a peer, which has none.
    """

    step: int
    time: float
    forecast: Tensor
    truth: Tensor | None
    layout: TokenLayout | None


@dataclass(frozen=True)
class ShownRollout:
    """A rollout of one system.

    Attributes:
        system: name of the PDE system.
        trajectory: file and name of the trajectory.
        field: name of the field that is shown.
        spacing: cell size along ``z, y, x``.
        views: the field, its truth and the tokens at some steps, the last one among them.
    """

    system: str
    trajectory: str
    field: str
    spacing: tuple[float, float, float]
    views: tuple[View, ...]


def show_rollouts(
    model: Forecaster, data: HeldOut, windows: Sequence[Window], num_steps: int, conserve: bool = False
) -> list[ShownRollout]:
    """Roll the model out from a window of each system, and keep as many steps as a page can hold."""
    most = max(2, min(MOST_OF_ONE, MOST_VIEWS // max(1, len(windows))))
    shown = [num_steps - every for every in range(0, num_steps, -(-num_steps // most))]
    return [show_rollout(model, data, window, num_steps, shown, conserve=conserve) for window in windows]


def show_rollout(
    model: Forecaster,
    data: HeldOut,
    window: Window,
    num_steps: int,
    shown: Collection[int],
    field: int = 0,
    conserve: bool = False,
) -> ShownRollout:
    """Roll the model out from a window, and keep a field at some steps; 0 is the last known frame."""
    known, truth = read_rollout(data.sets, [window], data.num_frames, num_steps)
    about = data.about(window)
    forecast = [frame.cpu()[:, None] for frame in rollout(model, known, num_steps, conserve=conserve)]
    frames, views = torch.cat([known.history, *forecast], dim=1), []  # (b, t, f, z, y, x)
    truth = torch.cat([known.last[:, None], truth], dim=1)
    for step in sorted(shown):
        history = frames[:, step : step + data.num_frames]
        batch = known.with_tensors(history=history)
        time = (window.start + data.num_frames - 1 + step) * about.time_step
        layout = None
        if isinstance(model, MateyModel):
            layout = tokenize([batch], model.config.patches, model.config.refinement).layout
        views.append(View(step, time, history[0, -1, field], truth[0, step, field], layout))
    label = f"{about.source.name}, trajectory {about.name}"
    return ShownRollout(known.system, label, known.fields[field], known.spacing, tuple(views))


def longest_rollout(data: HeldOut) -> int:
    """Return how many frames follow the first history in every trajectory; 0 without trajectories."""
    return max(0, min((about.num_frames - data.num_frames for *_, about in data.chosen), default=0))


Totals = Mapping[str, Tensor]
"""Totals ``(b, k)`` of the components of conserved quantities, by the names of their measures."""


def conserved_by(about: FieldBatch) -> dict[str, Measure]:
    """Return the measures of what is conserved, by name; only one cell of a batch is looked at."""
    cell = about.last[..., :1, :1, :1]
    kept = ((name, of) for name, of in measures_of(about) if of.corrections is not None)
    return {name: of for name, of in kept if of.sums(cell, about) is not None}


def kept_names(data: TrajectorySet, trajectory: int = 0) -> list[str]:
    """Return the names of the quantities that rollouts of a trajectory keep."""
    about = described(samples_of(data, [trajectory], 1), slice(0, 1))
    return [name.removeprefix(TOTAL) for name in conserved_by(about)]


def kept_note(data: TrajectorySet, trajectory: int = 0) -> str:
    """Return a sentence that says which quantities rollouts of a trajectory keep."""
    if names := kept_names(data, trajectory):
        return f"Rollouts of {data.system} keep the totals of: {', '.join(names)}."
    return (
        f"Rollouts of {data.system} keep no totals: nothing is known to be conserved. A description of the data can name "
        "fields that are, with the key conserved."
    )


def totals_of(frame: Tensor, cells: OwnCells) -> Totals:
    """Return the totals of a frame ``(k, f, z, y, x)`` in own cells; empty if nothing is known to be conserved."""
    sums = {name: _sums(of, frame, cells) for name, of in conserved_by(cells.about).items()}
    return {name: of_quantity.chunk(2, dim=1)[0] for name, of_quantity in sums.items()}


def kept(frame: Tensor, cells: OwnCells, totals: Totals) -> Tensor:
    """Return a predicted frame ``(k, f, z, y, x)`` in own cells, shifted so that it has the totals."""
    for name, of in conserved_by(cells.about).items() if totals else ():
        found, growth = _sums(of, frame, cells).chunk(2, dim=1)
        shift = ((totals[name] - found) / growth).where(growth != 0, 0.0)  # (b, k)
        added = torch.zeros(frame.shape[:2], dtype=shift.dtype, device=frame.device)
        corrected = (field for field, _ in _corrections(of, frame[..., :1, :1, :1], cells))
        added[:, [*map(cells.about.fields.index, corrected)]] = shift[cells.own]
        frame = frame + added[..., None, None, None].to(frame.dtype)
    return frame


def _sums(of: Measure, frame: Tensor, cells: OwnCells) -> Tensor:
    """Return sums ``(b, 2 k)`` of a quantity's components, then of how fast they grow with the fields that correct them."""

    def sums_of(slab: Tensor) -> Tensor:
        sums = of.sums(slab, cells.about)
        assert sums is not None, f"{of.label} of a system that does not conserve it"
        fields = fields_of(slab, cells.about)
        growth = [rate.where(~fields[name].isnan(), 0) for name, rate in _corrections(of, slab, cells)]
        return torch.cat([sums[:, :-1], without_gaps(torch.stack(growth, dim=1)).sum(dim=CELLS)], dim=1)

    return cells.summed(sums_of, frame)


def _corrections(of: Measure, frame: Tensor, cells: OwnCells) -> list[tuple[str, Tensor]]:
    """Return the field that corrects each component, and how fast the component grows with it, ``(k, z, y, x)``."""
    assert of.corrections is not None, f"{of.label} is not conserved"
    return of.corrections(fields_of(frame, cells.about), cells.about)
