"""A rollout looked at in a few of its snapshots: forecast, truth, and the tokens into which the model cuts the forecast."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from matey.data import DataError, TrajectorySet, Window
from matey.data.reading import read_rollouts
from matey.data.windows import num_starts
from matey.evaluate.evaluation import check_fit
from matey.evaluate.held_out import HeldOut
from matey.evaluate.rollout import rollout
from matey.metrics import nrmse
from matey.model.matey import MateyModel
from matey.tokens.layout import TokenLayout
from matey.tokens.tokenize import tokenize


@dataclass(frozen=True)
class Snapshot:
    """One time of a rollout.

    Attributes:
        step: snapshots after the last known frame; 0 is that frame itself.
        fields: names along axis ``f``.
        spacing: cell size along ``z, y, x``.
        forecast: predicted frame ``(f, z, y, x)`` in physical units; the known frame at step 0.
        truth: true frame ``(f, z, y, x)`` in physical units.
        layout: tokens of the frames up to this one, from which the model forecasts the next.
        error: NRMSE of the forecast, mean over the fields.
        persistence: NRMSE of the last known frame, mean over the fields.
    """

    step: int
    fields: tuple[str, ...]
    spacing: tuple[float, float, float]
    forecast: Tensor
    truth: Tensor
    layout: TokenLayout
    error: float
    persistence: float


def forecast_snapshots(
    model: MateyModel, data: TrajectorySet, trajectory: int, start: int, num_frames: int, steps: Sequence[int]
) -> list[Snapshot]:
    """Roll a model out from one window of a trajectory and keep the last known frame and the frames at ``steps``.

    Args:
        model: the trained model.
        data: the data set that holds the trajectory.
        trajectory: number of the trajectory, counted from 0.
        start: first frame that the model is given.
        num_frames: number of frames that it is given.
        steps: numbers of the forecast frames to keep, counted from 1 for the first.

    Raises:
        DataError: the model cannot take the data, or there is no such trajectory or no such stretch of it.
    """
    if not 0 <= trajectory < data.num_trajectories:
        raise DataError(
            f"{data.system} has {data.num_trajectories} trajectories here, numbered from 0; got {trajectory}."
        )
    data = data.with_given(model.config.given)
    check_fit(model, HeldOut((data,), ((trajectory,),), num_frames))
    last_start = num_starts(data.trajectories[trajectory], num_frames, max(steps)) - 1
    if not 0 <= start <= last_start:
        raise DataError(
            f"{data.trajectories[trajectory].label}: with {max(steps)} snapshots to forecast, expected a first frame "
            f"from 0 to {last_start}, got {start}."
        )
    (known,) = read_rollouts([data], [Window(0, trajectory, start, lead=1)], num_frames, max(steps))
    forecasts = [frame.cpu() for frame in rollout(model, known.batch, max(steps))]
    forecast = torch.cat([known.batch.history, torch.stack(forecasts, dim=1)], dim=1)  # (b, t, f, z, y, x)
    truth = torch.cat([known.batch.last[:, None], known.truth], dim=1)  # (b, t, f, z, y, x)
    snapshots = []
    for step in (0, *steps):
        seen = known.batch.with_tensors(history=forecast[:, step : step + num_frames])
        snapshots.append(
            Snapshot(
                step=step,
                fields=known.batch.fields,
                spacing=known.batch.spacing,
                forecast=seen.last[0],
                truth=truth[0, step],
                layout=tokenize([seen], model.config.patches, model.config.refinement).layout,
                error=nrmse(seen.last, truth[:, step]).mean().item(),
                persistence=nrmse(known.batch.last, truth[:, step]).mean().item(),
            )
        )
    return snapshots
