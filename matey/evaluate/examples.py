"""Example forecasts for a report: fields and tokens at three times of one trajectory per system."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from matey.data import Window, read_windows
from matey.evaluate.costs import num_uniform_tokens
from matey.evaluate.forecaster import Forecaster, patches_of, predict_with_tokens
from matey.evaluate.held_out import HeldOut
from matey.nested import with_tensors
from matey.tokens.layout import TokenLayout
from matey.tokens.patches import Patch


@dataclass(frozen=True)
class Example:
    """One sample, its forecast and its tokens.

    Attributes:
        system: name of the PDE system.
        fields: names along axis ``f``.
        units: unit of each field; ``1`` for a field without one.
        trajectory: file and name of the trajectory.
        frame: index of the last known frame in its trajectory.
        lead: number of snapshots from the last known frame to the target.
        time_step: time between two snapshots.
        spacing: cell size along ``z, y, x``.
        last: ``(f, z, y, x)``, the last known frame.
        target: ``(f, z, y, x)``, the truth.
        prediction: ``(f, z, y, x)``, the forecast.
        layout: the sample's tokens; None for a peer, which has none.
        patches: size ``[t, z, y, x]`` of the patches of each level, coarse to fine; empty for a peer.
        num_uniform_tokens: number of tokens if the sample were cut into the finest patches everywhere; NaN for a peer.
    """

    system: str
    fields: tuple[str, ...]
    units: tuple[str, ...]
    trajectory: str
    frame: int
    lead: int
    time_step: float
    spacing: tuple[float, float, float]
    last: Tensor
    target: Tensor
    prediction: Tensor
    layout: TokenLayout | None
    patches: tuple[Patch, ...]
    num_uniform_tokens: float

    @property
    def tokens_per_level(self) -> list[int]:
        """Number of tokens at each level of refinement, coarse to fine."""
        return [] if self.layout is None else self.layout.level.bincount(minlength=len(self.patches)).tolist()


def make_examples(model: Forecaster, data: HeldOut, lead: int) -> list[Example]:
    """Predict at the beginning, the middle and the end of each system's first trajectory, in that order."""
    examples = []
    for system in data.systems:
        index = next(i for i, trajectory_set in enumerate(data.sets) if trajectory_set.system == system)
        trajectory = data.trajectories[index][0]
        last_start = data.sets[index].trajectories[trajectory].num_frames - data.num_frames - lead
        for start in dict.fromkeys((0, last_start // 2, last_start)):
            examples.append(make_example(model, data, Window(index, trajectory, start, lead)))
    return examples


def make_example(model: Forecaster, data: HeldOut, window: Window) -> Example:
    """Predict one window and keep the frames and tokens to show."""
    (batch,) = read_windows(data.sets, [window], data.num_frames)
    prediction, layout = predict_with_tokens(model, batch)
    trajectory_set = data.sets[window.set_index]
    trajectory = trajectory_set.trajectories[window.trajectory]
    return Example(
        system=batch.system,
        fields=batch.fields,
        units=trajectory_set.units,
        trajectory=f"{trajectory.source.name}, trajectory {trajectory.name}",
        frame=window.start + data.num_frames - 1,
        lead=window.lead,
        time_step=trajectory.time_step,
        spacing=batch.spacing,
        last=batch.last[0],
        target=batch.known_target[0],
        prediction=prediction[0],
        layout=with_tensors(layout, Tensor.cpu),
        patches=patches_of(model),
        num_uniform_tokens=num_uniform_tokens(model, batch.samples),
    )
