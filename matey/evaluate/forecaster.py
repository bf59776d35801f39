"""The interface of a model in an evaluation, MATEY or one of its peers."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeGuard

import torch
from torch import Tensor

from matey.data import Window, read_windows
from matey.evaluate.held_out import HeldOut
from matey.fields import FieldBatch
from matey.model.matey import MateyModel
from matey.model.nested import with_tensors
from matey.samples import Samples
from matey.tokens.layout import TokenLayout
from matey.tokens.patches import Patch, cover, patch_grid


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


def patches_of(model: Forecaster) -> tuple[Patch, ...]:
    """Return the sizes ``[t, z, y, x]`` of a model's patches, coarse to fine; none of a model without tokens."""
    return tuple(model.config.patches) if has_tokens(model) else ()


def num_sharing(model: Forecaster) -> int:
    """Return the number of ranks that forecast together, each with a part of the fields."""
    return model.sequence_group.size if isinstance(model, MateyModel) else 1


def predict_with_tokens(model: Forecaster, batch: FieldBatch) -> tuple[Tensor, TokenLayout | None]:
    """Return the predicted frame ``(b, f, z, y, x)`` on the CPU, and the tokens of the batch, if the model has any."""
    if not has_tokens(model):
        return model.predict(batch).cpu(), None
    tokens = model.tokens_of(batch)
    return model.predict(batch, tokens).cpu(), tokens.layout


@dataclass(frozen=True)
class Cost:
    """Mean cost of one forecast of a system, over one batch or several.

    Attributes:
        system: name of the PDE system.
        tokens: mean number of tokens per sample; NaN for a peer, which has none.
        uniform_tokens: mean number of tokens per sample of the uniform grid of the finest patches; NaN for a peer.
        seconds: seconds per sample, from the fields in main memory to the prediction there; of several batches the median, so
            that the first batch's warm-up does not count.
        num_forecasts: number of forecasts in these means.
    """

    system: str
    tokens: float
    uniform_tokens: float
    seconds: float
    num_forecasts: int

    @property
    def share(self) -> float:
        """Number of tokens divided by that of the uniform grid."""
        return self.tokens / self.uniform_tokens


def cost_of(model: Forecaster, samples: Samples, num_tokens: float, seconds: float) -> Cost:
    """Return the cost of a batch from its tokens, NaN for a model without any, and its seconds."""
    number, uniform = samples.number, num_uniform_tokens(model, samples)
    return Cost(samples.system, num_tokens / number, uniform, seconds / number, number)


def num_uniform_tokens(model: Forecaster, samples: Samples) -> float:
    """Return the number of tokens if the samples were cut into the finest patches everywhere; NaN for peers."""
    if not (patches := patches_of(model)):
        return math.nan
    finest = patches[-1]
    return math.prod(patch_grid(cover(samples.window, finest), finest))


def mean_costs(batches: Sequence[Cost]) -> list[Cost]:
    """Average the costs of batches into one per system, in the order in which the systems first appear."""
    costs = []
    for system in dict.fromkeys(batch.system for batch in batches):
        own = [batch for batch in batches if batch.system == system]
        number = sum(batch.num_forecasts for batch in own)
        tokens = sum(batch.tokens * batch.num_forecasts for batch in own) / number
        uniform = sum(batch.uniform_tokens * batch.num_forecasts for batch in own) / number
        costs.append(Cost(system, tokens, uniform, statistics.median(batch.seconds for batch in own), number))
    return costs


@dataclass(frozen=True)
class Example:
    """One sample, its forecast and its tokens.

    Attributes:
        system: name of the PDE system.
        batch: the sample: histories, target, fields and spacing.
        units: unit of each field; ``1`` for a field without one.
        trajectory: file and name of the trajectory.
        frame: index of the last known frame in its trajectory.
        lead: number of snapshots from the last known frame to the target.
        time_step: time between two snapshots.
        prediction: ``(f, z, y, x)``, the forecast.
        layout: the sample's tokens; None for a peer, which has none.
        patches: size ``[t, z, y, x]`` of the patches of each level, coarse to fine; empty for a peer.
        num_uniform_tokens: number of tokens if the sample were cut into the finest patches everywhere; NaN for a peer.
    """

    system: str
    batch: FieldBatch
    units: tuple[str, ...]
    trajectory: str
    frame: int
    lead: int
    time_step: float
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
        batch=batch,
        units=trajectory_set.units,
        trajectory=f"{trajectory.source.name}, trajectory {trajectory.name}",
        frame=window.start + data.num_frames - 1,
        lead=window.lead,
        time_step=trajectory.time_step,
        prediction=prediction[0],
        layout=with_tensors(layout, Tensor.cpu),
        patches=patches_of(model),
        num_uniform_tokens=num_uniform_tokens(model, batch.samples),
    )
