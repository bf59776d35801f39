"""Power spectra of fields by wavenumber, averaged over directions: the energy and the error of a forecast at each scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from matey.data.trajectories import ALL_FIELDS
from matey.evaluate.records import TRUTH, Kind, Record, add_up
from matey.fields import FieldBatch

CELLS = (-3, -2, -1)
POWER = ("power_coarse", "power_middle", "power_fine")
"""Names of the ratios of a forecast's power to the truth's in each third of the wavenumbers, longest waves first."""

Key = tuple[str, tuple[str, ...], Kind, int, tuple[float, ...]]
"""System, fields, kind, lead and wavenumbers of a sum."""


@dataclass(frozen=True)
class Spectra:
    """Mean power at the last step of a rollout over the windows of one system.

    Attributes:
        system: name of the PDE system.
        fields: names along axis ``f``.
        kind: kind of the rollout, see `matey.evaluate.records.Record`.
        lead: number of snapshots from the last frame of the history.
        wavenumbers: ``(k,)``, cycles per unit of length.
        truth: ``(f, k)``, power of the true frame, in the square of the field's unit.
        forecast: ``(f, k)``, power of the predicted frame.
        error: ``(f, k)``, power of the difference of the two.
    """

    system: str
    fields: tuple[str, ...]
    kind: Kind
    lead: int
    wavenumbers: Tensor
    truth: Tensor
    forecast: Tensor
    error: Tensor


class SpectraSums:
    """Sums power spectra batch by batch, for the first grid of each system."""

    def __init__(self) -> None:
        """Start with no windows."""
        self._sums: dict[Key, tuple[Tensor, int]] = {}

    def add(self, batch: FieldBatch, kind: Kind, lead: int, forecast: Tensor, truth: Tensor) -> None:
        """Add the spectra of frames ``(b, f, z, y, x)`` in physical units."""
        powers, gaps = [], truth.isnan()
        for frames in (truth, forecast, forecast - truth):
            if gaps.any():  # cells without data count as the mean
                mean = frames.masked_fill(gaps, 0).sum(dim=CELLS, keepdim=True) / (~gaps).sum(dim=CELLS, keepdim=True)
                frames = frames.where(~gaps, mean)
            wavenumbers, power = radial_power(frames, batch.spacing, batch.periodic)
            powers.append(power.sum(dim=0))
        key = batch.system, batch.fields, kind, lead, tuple(wavenumbers.tolist())
        add_up(self._sums, {key: (torch.stack(powers), batch.num_samples)})

    def merge(self, later: SpectraSums) -> None:
        """Add the sums of windows that come after these."""
        add_up(self._sums, later._sums)

    def spectra(self) -> list[Spectra]:
        """Return the means on the first grid of each system, in the order in which their first windows were added."""
        first: dict[tuple[str, Kind], Spectra] = {}
        for (system, fields, kind, lead, wavenumbers), (powers, count) in self._sums.items():
            places = torch.tensor(wavenumbers, dtype=torch.float64)
            if wavenumbers:  # a domain of a few cells along its short side has none in common
                first.setdefault((system, kind), Spectra(system, fields, kind, lead, places, *powers / count))
        return list(first.values())


def with_power(records: Sequence[Record], spectra: Sequence[Spectra]) -> list[Record]:
    """Add `POWER` to the records of the last steps of rollouts, as geometric means over each system's fields."""
    found = {(each.system, each.kind, each.lead): _power(each) for each in spectra}
    more = (found.get((r.system, r.kind, r.lead), {}) if r.field == ALL_FIELDS else {} for r in records)
    return [replace(r, physics={**r.physics, **own}) if own else r for r, own in zip(records, more, strict=True)]


def _power(spectra: Spectra) -> dict[str, float]:
    """Return the ratio of the forecast's power to the truth's in each third, and the truth's own ratio, which is 1."""
    if len(spectra.wavenumbers) < len(POWER):
        return {}
    numbers: dict[str, float] = {}
    parts = (each.tensor_split(len(POWER), dim=1) for each in (spectra.forecast, spectra.truth))
    for name, forecast, truth in zip(POWER, *parts, strict=True):
        of_fields = (forecast.sum(dim=1) / truth.sum(dim=1))[truth.sum(dim=1) > 0]
        if len(of_fields):
            numbers |= {name: of_fields.log().mean().exp().item(), TRUTH + name: 1.0}
    return numbers


def radial_power(frames: Tensor, spacing: Sequence[float], periodic: Sequence[bool]) -> tuple[Tensor, Tensor]:
    """Average the squared Fourier coefficients of each field over shells of similar wavenumber.

    The mean of a field is left out. A non-periodic axis is first weighted by a Hann window of mean square 1, because a
    jump between its ends would appear as power at all wavenumbers.

    Args:
        frames: ``(b, f, z, y, x)``, the fields.
        spacing: size of a cell along ``z, y, x``.
        periodic: whether the domain wraps around along ``z, y, x``.

    Returns:
        ``(k,)``, the wavenumbers in cycles per unit of length, from that of the domain's shortest side to the largest that
        the coarsest axis resolves; and ``(b, f, k)``, the mean power in the shells around them. Both: float64 on the CPU.
    """
    axes = [axis for axis in CELLS if frames.shape[axis] > 1]
    frames = frames.cpu().double()
    frames = frames - frames.mean(dim=CELLS, keepdim=True)
    squares = torch.zeros(frames.shape[-3:], dtype=torch.float64)
    for axis in axes:
        size, along = frames.shape[axis], [-1 if axis == other else 1 for other in CELLS]
        if not periodic[axis]:
            window = torch.hann_window(size, periodic=True, dtype=torch.float64)
            frames = frames * (window / window.square().mean().sqrt()).view(along)
        squares = squares + torch.fft.fftfreq(size, spacing[axis], dtype=torch.float64).square().view(along)
    power = torch.fft.fftn(frames, dim=axes).abs().square() / squares.numel() ** 2

    width = max(1 / (frames.shape[axis] * spacing[axis]) for axis in axes)
    num_shells = int(min(0.5 / spacing[axis] for axis in axes) / width + 1e-6)
    shell = (squares.sqrt() / width).round().long().flatten()
    inside = (shell >= 1) & (shell <= num_shells)
    shell = shell[inside] - 1
    summed = power.new_zeros(*frames.shape[:2], num_shells).index_add(2, shell, power.flatten(2)[..., inside])
    return width * torch.arange(1, num_shells + 1, dtype=torch.float64), summed / shell.bincount(minlength=num_shells)
