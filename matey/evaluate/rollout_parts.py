"""Rolls a model out over fields that the ranks of a group hold in parts, see `matey.evaluate.rollout`.

Each rank keeps its boxes of cells throughout; from other ranks it gets only the cells that its tokens need.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from matey.evaluate.conservation import Totals, num_components, one_of, shifted, shifts, sums_of
from matey.evaluate.rollout import largest_after, largest_of
from matey.model.forecast import Frames, inside, moved_on, next_frames
from matey.model.matey import MateyModel
from matey.model.prepare import prepare_parts
from matey.model.sequence_group import Exchange
from matey.samples import BatchPart

AT_ONCE = 2**18  # number of cells whose sums are taken at once


@torch.no_grad()
def rollout_parts(
    model: MateyModel,
    part: BatchPart,
    num_steps: int,
    lead: int = 1,
    *,
    largest: Tensor | None = None,
    totals: Totals | None = None,
) -> Iterator[Frames]:
    """Predict ``num_steps`` consecutive frames; all ranks of the model's sequence group must iterate together.

    Args:
        model: the model, whose sequence group has several ranks.
        part: this rank's part of the histories.
        num_steps: number of frames.
        lead: number of frames that are predicted from the same history.
        largest: the largest changes so far, see `matey.evaluate.rollout.rollout`.
        totals: totals that every frame keeps, see `totals_of_part`; by default none.

    Yields:
        The frame ``(f, z, y, x)`` in the box of each piece, in physical units, on the host.
    """
    model.eval()
    group = model.sequence_group
    ranks, exchange = group.ranks, group.exchange
    largest = largest_change_of(part, exchange, ranks.size) if largest is None else largest
    for first in range(0, num_steps, lead):
        prepared = prepare_parts([part.at_lead(1)], model.config, ranks, exchange).to(model.device)
        frames: list[Frames] = []
        for ahead in range(1, min(lead, num_steps - first) + 1):
            if ahead > 1 and part.num_given > 1:  # each frame needs the given fields at its own time
                prepared = prepare_parts([part.at_lead(ahead)], model.config, ranks, exchange).to(model.device)
            (frame,) = next_frames(model(prepared.at_lead(ahead)), [part], model.config, ranks, exchange)
            frame, after = _limited(frame, part, ahead, largest, exchange, ranks.size)
            if totals:
                frame = _kept(frame, part, totals, exchange, ranks.size)
                sizes = sizes_of(_changes(frame, part), part, exchange, ranks.size)
                after = largest_after(largest, sizes, ahead)
            largest = after
            frames.append(frame)
            yield frame
        del prepared
        part = moved_on(part, [torch.stack(of_piece) for of_piece in zip(*frames, strict=True)], len(frames))


def largest_change_of(part: BatchPart, exchange: Exchange, num_ranks: int) -> Tensor:
    """Return the largest change ``(b, f)`` that a rollout may make, see `matey.evaluate.rollout.largest_change`."""
    about, num_frames = part.samples, part.samples.window[0]
    histories = [inside(piece, piece.history) for piece in part.pieces]
    changes = torch.full((about.number, len(about.fields)), torch.inf, dtype=torch.float64)
    if num_frames > 1:
        squares = [
            torch.stack([_squares(frame - before) for before, frame in zip(h, h[1:], strict=False)]) for h in histories
        ]
        changes = _means(part, squares, num_frames - 1, exchange, num_ranks).sqrt().amax(dim=1)
    own = [h.double().sum(dim=(2, 3, 4)) for h in histories]
    mean = _means(part, own, num_frames, exchange, num_ranks).mean(dim=1)
    off = [
        torch.stack([_squares(frame - mean[piece.sample, :, None, None, None]) for frame in h])
        for piece, h in zip(part.pieces, histories, strict=True)
    ]
    deviation = _means(part, off, num_frames, exchange, num_ranks).mean(dim=1).sqrt()
    return largest_of(changes, mean, deviation)


def sizes_of(changes: Frames, part: BatchPart, exchange: Exchange, num_ranks: int) -> Tensor:
    """Return the root mean square ``(b, f)`` over all cells of changes ``(f, z, y, x)`` in the box of each piece."""
    own = [_squares(inside(piece, of))[None] for piece, of in zip(part.pieces, changes, strict=True)]
    return _means(part, own, 1, exchange, num_ranks)[:, 0].sqrt()


def _limited(
    frames: Frames, part: BatchPart, ahead: int, largest: Tensor, exchange: Exchange, num_ranks: int
) -> tuple[Frames, Tensor]:
    """Scale changes down to the largest ones, see `matey.evaluate.rollout.limited`."""
    changes = _changes(frames, part)
    sizes = sizes_of(changes, part, exchange, num_ranks)
    largest = largest_after(largest, sizes, ahead)
    share = ahead * largest / sizes
    found = []
    for frame, change, piece in zip(frames, changes, part.pieces, strict=True):
        factor = share[piece.sample, :, None, None, None]
        found.append(frame.where(factor >= 1, piece.history[-1] + factor.to(change.dtype) * change))
    return found, largest


def _changes(frames: Frames, part: BatchPart) -> Frames:
    return [frame - piece.history[-1] for frame, piece in zip(frames, part.pieces, strict=True)]


def totals_of_part(part: BatchPart, exchange: Exchange, num_ranks: int) -> Totals:
    """Return the totals of the last known frame over all cells, see `matey.evaluate.conservation.totals_of`."""
    last = [inside(piece, piece.history[-1]) for piece in part.pieces]
    totals = {}
    for name, width in num_components(one_of(part.samples)).items():
        _, sums = _sums_of(name, last, part, width, exchange, num_ranks)
        totals[name] = sums[:, :width]
    return totals


def _kept(frames: Frames, part: BatchPart, totals: Totals, exchange: Exchange, num_ranks: int) -> Frames:
    """Shift frames so that they have the totals, see `matey.evaluate.conservation.kept`."""
    for name, total in totals.items():
        own = [inside(piece, frame) for piece, frame in zip(part.pieces, frames, strict=True)]
        fields, sums = _sums_of(name, own, part, total.shape[1], exchange, num_ranks)
        shift = shifts(total, sums)
        frames = [
            shifted(frame[None], fields, shift[[piece.sample]])[0]
            for piece, frame in zip(part.pieces, frames, strict=True)
        ]
    return frames


def _sums_of(
    name: str, own: Frames, part: BatchPart, width: int, exchange: Exchange, num_ranks: int
) -> tuple[list[int], Tensor]:
    """Return the sums of a quantity over all cells, see `matey.evaluate.conservation.sums_of`."""
    fields, sums = list[int](), list[Tensor]()
    for piece, frame in zip(part.pieces, own, strict=True):
        about = one_of(part.samples, piece.sample)
        sums.append(torch.zeros(2 * width, dtype=torch.float64))
        for slab in slabs([frame]):
            fields, of_slab = sums_of(name, slab, about)
            sums[-1] += of_slab[0]
    return fields, added_up(part, sums, (2 * width,), exchange, num_ranks)


def slabs(frames: Sequence[Tensor]) -> Iterator[Tensor]:
    """Yield several frames ``(f, z, y, x)`` of a box stacked, ``(g, f, z, y, x)`` in float64, a few layers at a time."""
    axis = 1 if frames[0].shape[1] > 1 else 2
    layers = max(AT_ONCE // frames[0].narrow(axis, 0, 1)[0].numel(), 1)
    for of_all in zip(*(frame.split(layers, dim=axis) for frame in frames), strict=True):
        yield torch.stack(of_all).double()


def _squares(values: Tensor) -> Tensor:
    """Return the sum of squares ``(f,)`` of ``(f, z, y, x)``; squares may overflow float32."""
    return values.double().square().sum(dim=(1, 2, 3))


def added_up(
    part: BatchPart, sums: Sequence[Tensor], shape: Sequence[int], exchange: Exchange, num_ranks: int
) -> Tensor:
    """Return sums over all cells of each sample, ``(b, *shape)``, from those of this shape over the cells of each own piece."""
    of_samples = torch.zeros(part.samples.number, *shape, dtype=torch.float64)
    for piece, of_piece in zip(part.pieces, sums, strict=True):
        of_samples[piece.sample] += of_piece
    of_ranks = exchange.gather(of_samples.flatten(), [of_samples.numel()] * num_ranks)
    return of_ranks.view(num_ranks, *of_samples.shape).sum(dim=0)


def _means(part: BatchPart, sums: Sequence[Tensor], num_frames: int, exchange: Exchange, num_ranks: int) -> Tensor:
    """Return means over all cells of each sample, ``(b, t, f)``, from sums ``(t, f)`` over the cells of each own piece."""
    about = part.samples
    total = added_up(part, sums, (num_frames, len(about.fields)), exchange, num_ranks)
    return total / math.prod(about.window[1:])
