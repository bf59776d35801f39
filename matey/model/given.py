"""A model's inputs besides the history of a sample: given fields, scales, and numbers such as a viscosity.

The embedding and the network on cells see given fields as they see those of the history; nothing predicts them, and refinement
ignores them. The patches of the frame at time ``t`` see given fields at ``t`` + lead time: the newest frame sees
them at the target, and the frames before it, with short lead times, on the way there.

    history        u(0)    u(1)    u(2)    u(3)                    -> u(3 + lead)
    given, lead 1  f(1)    f(2)    f(3)    f(4)
    given, lead 2  f(2)    f(3)    f(4)    f(5)                    a field that is constant in time is the same in all frames

Scales are what the normalisation removes from a sample. The response of a network to a scale that it never saw is arbitrary:
fields in other units could get forecasts of any size. So a scale outside the range of its field in training is told as the
nearest value inside.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from matey.fields import BatchPart, FieldBatch, Samples, field_rows
from matey.model.configuration import NUM_SCALES, MateyConfig, Ranges
from matey.model.modules import Rows
from matey.tokens.normalisation import SMALLEST_CHANGE, Normalisation, normalisation_of


@dataclass(frozen=True)
class Given:
    """The given fields of a batch that the model knows.

    Attributes:
        values: ``(b, t, f, z, y, x)``, frames in physical units, as many as the history has or a single one.
        normalisation: statistics of the samples.
    """

    values: Tensor
    normalisation: Normalisation

    def beside(self, normalised: Tensor) -> Tensor:
        """Return normalised histories ``(b, t, f, z, y, x)`` with the normalised given fields appended to their fields."""
        values = self.normalisation.apply(self.values)
        return torch.cat([normalised, values.expand(-1, normalised.shape[1], -1, -1, -1, -1)], dim=2)


def rows_of(batch: Samples, config: MateyConfig, device: torch.device) -> Rows:
    """Find the rows of the fields of a batch.

    Raises:
        ValueError: a field to predict is not in the vocabulary.
    """
    predicted = torch.tensor(field_rows(batch.fields, config.fields), device=device)
    if not (known := _known(batch, config)):
        return Rows(predicted, predicted)
    names = [batch.given_fields[index] for index in known]
    given = torch.tensor(field_rows(names, config.fields), device=device)
    return Rows(torch.cat([predicted, given]), predicted)


def given_of(batch: FieldBatch, config: MateyConfig) -> Given | None:
    """Return the given fields of a batch that the model knows, each sample's at its own lead time; None if there are none.

    Raises:
        ValueError: the given fields end before a target.
    """
    known = _known(batch, config)
    if batch.given is None or not known:
        return None
    values = batch.given.to(batch.history.dtype)
    if len(known) < values.shape[2]:
        values = values[:, :, known]
    if values.shape[1] > 1:
        lead_time = _leads(batch.samples, values.shape[1])
        frames = lead_time[:, None] + torch.arange(batch.num_frames, device=lead_time.device)  # (b, t)
        values = values[torch.arange(batch.num_samples, device=lead_time.device)[:, None], frames]
    return Given(values, in_history(normalisation_of(values, config.patches[0]), values.shape[1], batch.num_frames))


def with_known(part: BatchPart, config: MateyConfig) -> BatchPart:
    """Return a part with only the given fields that the model knows, in the frames that `given_of` takes.

    Raises:
        ValueError: the given fields end before a target.
    """
    about = part.samples
    known = _known(about, config)
    names = tuple(about.given_fields[index] for index in known)
    num_frames = about.window[0] if part.num_given > 1 else 1
    leads = _leads(about, part.num_given) if part.num_given > 1 else torch.zeros(about.number, dtype=torch.long)
    pieces = []
    for piece in part.pieces:
        given, first = None, int(leads[piece.sample])
        if names:
            assert piece.given is not None, f"this part of {about.system} lacks {', '.join(names)}"
            given = piece.given[first : first + num_frames].to(piece.history.dtype)
            given = given if len(names) == given.shape[1] else given[:, known]
        pieces.append(replace(piece, given=given))
    about = replace(about, given_fields=names)
    return replace(part, samples=about, pieces=tuple(pieces), num_given=num_frames if names else 0)


def in_history(statistics: Normalisation, num_given: int, num_frames: int) -> Normalisation:
    """Return statistics of ``num_given`` given frames; a single frame counts as a history in which nothing changes."""
    return replace(statistics, change=SMALLEST_CHANGE * statistics.std) if num_given < num_frames else statistics


def with_given(of_history: Normalisation, other: Normalisation | None) -> Normalisation:
    """Return the statistics of a history's fields, then of the given fields."""
    if other is None:
        return of_history
    one = of_history
    pairs = ((one.mean, other.mean), (one.std, other.std), (one.change, other.change))
    return Normalisation(*(torch.cat(pair, dim=1) for pair in pairs))


def parameters_of(batch: Samples, names: Sequence[str], device: torch.device) -> Tensor:
    """Return the named parameters of the samples, ``(b, p)``, NaN where they are not known."""
    unknown = torch.full((batch.number,), torch.nan, device=device)
    each = [batch.parameters.get(name, unknown).to(unknown.dtype) for name in names]
    return torch.stack(each, dim=1)


def _leads(batch: Samples, num_given: int) -> Tensor:
    """Return the lead times ``(b,)`` in frames; raise ValueError if ``num_given`` given frames end before a target."""
    lead_time = batch.lead_time.round().long()
    ends = int(lead_time.max()) + batch.window[0]
    if ends > num_given:
        raise ValueError(
            f"{batch.system}: expected {', '.join(batch.given_fields)} in {ends} frames, up to the target, got "
            f"{num_given}; give these fields up to the last frame to forecast."
        )
    return lead_time


def _known(batch: FieldBatch | Samples, config: MateyConfig) -> list[int]:
    return [index for index, name in enumerate(batch.given_fields) if name in config.given]


def scales_of(
    normalisations: Iterable[Normalisation], rows: Sequence[Tensor], fields: Sequence[str], ranges: Ranges | None
) -> tuple[Tensor, ...]:
    """Return the scales of every batch as the network is told them, see `within`."""
    each = zip(normalisations, rows, strict=True)
    return tuple(within(normalisation.scales(), row, fields, ranges) for normalisation, row in each)


def within(scales: Tensor, rows: Tensor, fields: Sequence[str], ranges: Ranges | None) -> Tensor:
    """Return scales ``(b, f, 3)`` within the ranges of their fields; fields without a range keep theirs.

    Args:
        scales: the scales of the samples of a batch.
        rows: ``(f,)``, the rows of its fields in the vocabulary.
        fields: the vocabulary.
        ranges: the ranges; None: no ranges.
    """
    if not ranges:
        return scales
    everything = [[-torch.inf] * NUM_SCALES, [torch.inf] * NUM_SCALES]
    bounds = scales.new_tensor([ranges.get(name, everything) for name in fields])[rows]  # (f, 2, 3)
    return torch.minimum(torch.maximum(scales, bounds[:, 0]), bounds[:, 1])


def ranges_of(scales: Tensor, names: Sequence[str]) -> dict[str, list[list[float]]]:
    """Return the ranges of scales ``(b, f, 3)`` of some fields."""
    low, high = scales.amin(dim=0).tolist(), scales.amax(dim=0).tolist()
    return {name: [low[number], high[number]] for number, name in enumerate(names)}


def united(found: Iterable[Ranges]) -> dict[str, list[list[float]]]:
    """Return the smallest ranges that contain all the given ones."""
    total: dict[str, list[list[float]]] = {}
    for ranges in found:
        for name, (low, high) in ranges.items():
            lows, highs = total.get(name, [low, high])
            total[name] = [[*map(min, lows, low)], [*map(max, highs, high)]]
    return total


def widened(ranges: Ranges, margin: float) -> dict[str, list[list[float]]]:
    """Return ranges that are wider on each side, by ``margin`` times their width."""
    return {
        name: [
            [a - margin * (b - a) for a, b in zip(low, high, strict=True)],
            [b + margin * (b - a) for a, b in zip(low, high, strict=True)],
        ]
        for name, (low, high) in ranges.items()
    }
