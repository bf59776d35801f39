"""Rollouts to show step by step; a report has one per system, from the trajectory with the largest error."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor

from matey.data import Window, read_rollouts
from matey.evaluate.conservation import totals_of
from matey.evaluate.forecaster import Forecaster
from matey.evaluate.held_out import HeldOut
from matey.evaluate.rollout import rollout
from matey.model.matey import MateyModel
from matey.tokens.layout import TokenLayout
from matey.tokens.tokenize import tokenize

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
    (known,) = read_rollouts(data.sets, [window], data.num_frames, num_steps)
    about = data.sets[window.set_index].trajectories[window.trajectory]
    history, views = known.batch.history, []
    truth = torch.cat([known.batch.last[:, None], known.truth], dim=1)  # (b, t, f, z, y, x)
    totals = totals_of(known.batch) if conserve else None
    for step, frame in enumerate(chain([known.batch.last], rollout(model, known.batch, num_steps, totals=totals))):
        if step:
            history = torch.cat([history, frame.cpu()[:, None]], dim=1)[:, -data.num_frames :]
        if step not in shown:
            continue
        batch = known.batch.with_tensors(history=history)
        time = (window.start + data.num_frames - 1 + step) * about.time_step
        layout = None
        if isinstance(model, MateyModel):
            layout = tokenize([batch], model.config.patches, model.config.refinement).layout
        views.append(View(step, time, history[0, -1, field], truth[0, step, field], layout))
    label = f"{about.source.name}, trajectory {about.name}"
    return ShownRollout(known.batch.system, label, known.batch.fields[field], known.batch.spacing, tuple(views))
