"""Training on histories that the model itself predicted, so that rollouts stay accurate despite errors of earlier steps.

In a share of the steps the model first predicts a few frames, one after the other and without gradients, and is then
trained to reach the target from those (pushforward, Brandstetter et al. 2022, arXiv:2202.03376). Targets of such steps
lie as many frames further on, see `matey.data.windows`; near the end of a trajectory fewer frames are rolled out. The rest of
the lead time is predicted at once.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, TypeGuard

import torch
from torch import Tensor

from matey.config import TrainSection
from matey.fields import FieldBatch
from matey.model.blocks import uniform_hash
from matey.model.forecast import hold, next_frames
from matey.model.prepare import Prepared, prepare_parts
from matey.parallel.collectives import Engine
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
    """Roll a micro-batch out by ``num_steps`` frames, and return it in the form that the engine takes; all ranks must call.

    A list of parts is emptied, so that what was read does not lie in memory beside what follows from it.
    """
    if not is_part(batches):
        return push_forward(engine, batches.copy(), num_steps)
    group, config = engine.module.sequence_group, engine.module.config
    parts: list[BatchPart] = batches.copy()
    batches.clear()
    hold(parts, config, group.ranks)
    parts = push_forward(engine, parts, num_steps)
    return prepare_parts(parts, config, group.ranks, group.exchange).to(engine.device)


@torch.no_grad()
def push_forward(engine: Engine, batches: list[Any], num_steps: int) -> list[Any]:
    """Replace the newest frames of the histories by predictions. All ranks must call with the same number of steps.

    Args:
        engine: the engine of the model.
        batches: the batches of a micro-batch; or this rank's part of them, see `matey.model.forecast.hold`. Later
            ones take their place in the list while it is rolled out.
        num_steps: number of frames to predict; at most ``L - 1`` for a sample with lead time ``L``.

    Returns:
        The batches with later histories and shorter lead times; the targets are the same.
    """
    steps = [(_lead_time(batch).long() - 1).clamp(max=num_steps) for batch in batches]
    engine.eval()
    for step in range(num_steps):
        for number, frames in enumerate(_next_frames(engine, batches)):
            batches[number] = _later(batches[number], frames, steps[number] > step)
    engine.train()
    return [_at(batch, _lead_time(batch) - of_batch) for batch, of_batch in zip(batches, steps, strict=True)]


def _lead_time(batch: FieldBatch | BatchPart) -> Tensor:
    return batch.lead_time if isinstance(batch, FieldBatch) else batch.samples.lead_time


def _at(batch: FieldBatch | BatchPart, lead_time: Tensor) -> FieldBatch | BatchPart:
    """Return a batch with other lead times ``(b,)``."""
    if isinstance(batch, FieldBatch):
        return batch.with_tensors(lead_time=lead_time)
    return replace(batch, samples=replace(batch.samples, lead_time=lead_time))


def _next_frames(engine: Engine, batches: list[Any]) -> list[Any]:
    """Predict the frame after the histories: ``(b, f, z, y, x)`` of each batch, or in the box of each piece of a part."""
    if not is_part(batches):
        known = [_at(batch, torch.ones_like(_lead_time(batch))) for batch in batches]
        return [forecast.field() for forecast in engine(known)]
    group, config = engine.module.sequence_group, engine.module.config
    parts = [part.without_targets().at_lead(1) for part in batches]
    prepared = prepare_parts([*parts], config, group.ranks, group.exchange).to(engine.device)
    forecasts = engine(prepared)
    del prepared  # before frames come back, which take memory as well
    return next_frames(forecasts, parts, config, group.ranks, group.exchange)


def _later(batch: FieldBatch | BatchPart, frames: Any, moves: Tensor) -> FieldBatch | BatchPart:  # noqa: ANN401
    """Append the next frames to the histories of the samples that ``moves`` ``(b,)`` names; given fields move on with them.

    Of fields given in time the last frame is repeated, but nothing uses the copies.
    """
    if isinstance(batch, FieldBatch):
        history, given = batch.history, batch.given
        with_frame = _moved(history, frames.to(history.dtype), moves)
        moved = given if given is None or given.shape[1] == 1 else _moved(given, given[:, -1], moves)
        return batch.with_tensors(history=with_frame, given=moved)
    pieces = (
        _later_piece(piece, frame) if moves[piece.sample] else piece
        for piece, frame in zip(batch.pieces, frames, strict=True)
    )
    return replace(batch, pieces=tuple(pieces))


def _moved(frames: Tensor, new: Tensor, moves: Tensor) -> Tensor:
    """Return frames ``(b, t, f, z, y, x)`` with a new one ``(b, f, z, y, x)`` at the end, of the samples that move."""
    later = torch.cat([frames[:, 1:], new[:, None]], dim=1)
    return later.where(moves.view(-1, 1, 1, 1, 1, 1), frames)


def _later_piece(piece: Piece, frame: Tensor) -> Piece:
    """Append a frame ``(f, z, y, x)`` to the history of a piece."""
    given = piece.given
    if given is not None and len(given) > 1:
        given = torch.cat([given[1:], given[-1:]])
    return replace(piece, history=torch.cat([piece.history[1:], frame[None]]), given=given)
