"""Training on histories that the model itself predicted, so that rollouts stay accurate despite errors of earlier steps.

In a share of the steps the model first predicts a few frames, one after the other and without gradients, and is then
trained to reach the target from those (pushforward, Brandstetter et al. 2022, arXiv:2202.03376). Targets of such steps
lie as many frames further on, see `matey.data.windows`; near the end of a trajectory fewer frames are rolled out. The rest of
the lead time is predicted at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeGuard, cast

import torch
from torch import Tensor

from matey.config import TrainSection
from matey.fields import FieldBatch
from matey.model.blocks import uniform_hash
from matey.model.forecast import Frames, hold, next_frames
from matey.model.prepare import Prepared, prepare_parts
from matey.parallel.package import Engine
from matey.samples import BatchPart, Piece


def num_rolled(micro_step: int, settings: TrainSection) -> int:
    """Return the number of frames to roll out before a micro-step, counted from the run's start; all ranks have the same.

    All micro-steps of a step have the same number, so that a global batch has the same samples however it is cut.
    """
    if not settings.unroll:
        return 0
    first = (settings.seed % 2**22 << 40) + 2 * (micro_step // settings.accumulation)
    share, length = uniform_hash(torch.tensor([first, first + 1])).tolist()
    return 1 + int(length * settings.unroll) if share < settings.unroll_share else 0


def is_part(item: Any) -> TypeGuard[list[BatchPart]]:  # noqa: ANN401
    """Return whether an item is a rank's part of the fields of a micro-batch."""
    return isinstance(item, list) and isinstance(item[0], BatchPart)


def rolled_out(
    engine: Engine, batches: list[FieldBatch] | list[BatchPart], num_steps: int
) -> Prepared | list[FieldBatch]:
    """Roll a micro-batch out by ``num_steps`` frames, and return it in the form that the engine takes; all ranks must call."""
    if not is_part(batches):
        return push_forward(engine, cast(list[FieldBatch], batches), num_steps)
    group, config = engine.module.sequence_group, engine.module.config
    parts = push_parts_forward(engine, batches, num_steps)
    return prepare_parts(parts, config, group.ranks, group.exchange).to(engine.device)


@torch.no_grad()
def push_forward(engine: Engine, batches: Sequence[FieldBatch], num_steps: int) -> list[FieldBatch]:
    """Replace the newest frames of the histories by predictions. All ranks must call with the same number of steps.

    Args:
        engine: the engine of the model.
        batches: the batches of a micro-batch.
        num_steps: number of frames to predict; at most ``L - 1`` for a sample with lead time ``L``.

    Returns:
        The batches with later histories and shorter lead times; the targets are the same.
    """
    if not num_steps:
        return list(batches)
    steps = [(batch.lead_time.long() - 1).clamp(max=num_steps) for batch in batches]
    histories = [batch.history for batch in batches]
    engine.eval()
    for step in range(num_steps):
        known = [
            batch.with_tensors(
                history=history,
                lead_time=torch.ones_like(batch.lead_time),
                target=None,
                given=_given_from(batch, of_batch.clamp(max=step)),
            )
            for batch, history, of_batch in zip(batches, histories, steps, strict=True)
        ]
        frames = [forecast.field() for forecast in engine(known)]
        histories = [_shifted(*of_batch, step) for of_batch in zip(histories, frames, steps, strict=True)]
    engine.train()
    return [
        batch.with_tensors(
            history=history,
            lead_time=batch.lead_time - of_batch.to(batch.lead_time.dtype),
            given=_given_from(batch, of_batch),
        )
        for batch, history, of_batch in zip(batches, histories, steps, strict=True)
    ]


@torch.no_grad()
def push_parts_forward(engine: Engine, parts: list[BatchPart], num_steps: int) -> list[BatchPart]:
    """Do the same as `push_forward` for fields that ranks of a group have read in parts; all of these ranks must call.

    The list is emptied, so that what was read does not lie in memory beside what follows from it.
    """
    group, config = engine.module.sequence_group, engine.module.config
    hold(parts, config, group.ranks)
    held = parts.copy()
    parts.clear()
    steps = [(part.samples.lead_time.long() - 1).clamp(max=num_steps) for part in held]
    engine.eval()
    for step in range(num_steps):
        for number, frames in enumerate(_next_frames(engine, held)):
            later = (_later(*each, steps[number], step) for each in zip(held[number].pieces, frames, strict=True))
            held[number] = replace(held[number], pieces=tuple(later))
    engine.train()
    return [
        replace(part, samples=replace(part.samples, lead_time=part.samples.lead_time - of_batch))
        for part, of_batch in zip(held, steps, strict=True)
    ]


def _next_frames(engine: Engine, held: Sequence[BatchPart]) -> list[Frames]:
    """Predict the frame after the histories of all batches, in the box of each piece."""
    group, config = engine.module.sequence_group, engine.module.config
    known = [part.without_targets().at_lead(1) for part in held]
    prepared = prepare_parts([*known], config, group.ranks, group.exchange).to(engine.device)
    forecasts = engine(prepared)
    del prepared  # before frames come back, which take memory as well
    return next_frames(forecasts, known, config, group.ranks, group.exchange)


def _later(piece: Piece, frame: Tensor, steps: Tensor, step: int) -> Piece:
    """Append a frame ``(f, z, y, x)`` to the history of a piece, if its sample is rolled out as far as this step."""
    if steps[piece.sample] <= step:
        return piece
    given = piece.given
    if given is not None and len(given) > 1:  # the last frame again, which nothing uses
        given = torch.cat([given[1:], given[-1:]])
    return replace(piece, history=torch.cat([piece.history[1:], frame[None]]), given=given)


def _shifted(history: Tensor, frame: Tensor, steps: Tensor, step: int) -> Tensor:
    """Append a frame to the histories ``(b, t, f, z, y, x)`` of the samples that are rolled out as far as this step."""
    later = torch.cat([history[:, 1:], frame.to(history.dtype)[:, None]], dim=1)
    return later.where((steps > step).view(-1, 1, 1, 1, 1, 1), history)


def _given_from(batch: FieldBatch, steps: Tensor) -> Tensor | None:
    """Return the given fields of each sample from frame ``steps`` on; the last is repeated, but nothing uses the copies."""
    if batch.given is None or batch.given.shape[1] == 1:
        return batch.given
    frames = torch.arange(batch.given.shape[1], device=steps.device) + steps[:, None]  # (b, t)
    samples = torch.arange(batch.num_samples, device=steps.device)[:, None]
    return batch.given[samples, frames.clamp(max=batch.given.shape[1] - 1)]
