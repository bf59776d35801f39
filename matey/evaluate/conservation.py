"""Keeps what a system conserves in rollouts: after each forecast, fields are shifted by constants.

For each component of a conserved quantity, one field is shifted so that the component has the total of the last known frame:
the density for mass, then velocities for momentum, then the pressure for energy. Each forecast misses these totals a little;
without the shifts such errors add up over a rollout, even where the fields themselves decay.

The quantities are those of `matey.physics`. Nothing is asked of the model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from matey.data import TrajectorySet
from matey.data.reading import samples_of
from matey.fields import FieldBatch
from matey.physics import CELLS, TOTAL, fields_of, measure, measures_of
from matey.samples import Samples

Totals = Mapping[str, Tensor]
"""Totals ``(b, k)`` of the components of conserved quantities, by the names of their measures."""


def totals_of(batch: FieldBatch) -> Totals:
    """Return the totals of the last known frame; empty if nothing is known to be conserved."""
    return _totals(batch.last, batch)


def num_components(about: FieldBatch) -> dict[str, int]:
    """Return how many components each conserved quantity has, by the names of their measures; only one cell is looked at."""
    return {name: total.shape[1] for name, total in _totals(about.last[..., :1, :1, :1], about).items()}


def kept_names(data: TrajectorySet, trajectory: int = 0) -> list[str]:
    """Return the names of the quantities that rollouts of a trajectory keep."""
    return [name.removeprefix(TOTAL) for name in num_components(one_of(samples_of(data, [trajectory], 1)))]


def kept_note(data: TrajectorySet, trajectory: int = 0) -> str:
    """Return a sentence that says which quantities rollouts of a trajectory keep."""
    if names := kept_names(data, trajectory):
        return f"Rollouts of {data.system} keep the totals of: {', '.join(names)}."
    return (
        f"Rollouts of {data.system} keep no totals: nothing is known to be conserved. A description of the data can name "
        "fields that are, with the key conserved."
    )


def one_of(samples: Samples, sample: int = 0, spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> FieldBatch:
    """Return a description of a sample: all but its values, which are zeros and take no memory.

    The conserved quantities do not depend on the spacing.
    """
    zeros = torch.zeros(1, 1, len(samples.fields), 1, 1, 1)
    of_a_cell = FieldBatch(
        samples.system,
        samples.fields,
        zeros,
        samples.lead_time[[sample]],
        spacing=spacing,
        periodic=samples.periodic,
        parameters={name: of_samples[[sample]] for name, of_samples in samples.parameters.items()},
        conserved=samples.conserved,
    )
    return of_a_cell.with_tensors(history=zeros.expand(-1, -1, -1, *samples.window[1:]))  # a new batch reads all values


def kept(frame: Tensor, batch: FieldBatch, totals: Totals) -> Tensor:
    """Return a predicted frame ``(b, f, z, y, x)`` that follows a batch, shifted so that it has the totals."""
    for name, total in totals.items():
        fields, sums = sums_of(name, frame, batch)
        frame = shifted(frame, fields, shifts(total.to(sums.device), sums))
    return frame


def sums_of(name: str, frame: Tensor, about: FieldBatch) -> tuple[list[int], Tensor]:
    """Sum a quantity over cells, and how fast it grows with the fields that correct it.

    Args:
        name: name of the quantity's measure.
        frame: cells of a frame, ``(b, f, z, y, x)``.
        about: batch that describes the fields.

    Returns:
        The places along ``f`` of the fields that correct the components; and the sums ``(b, 2 k)``, first of all components,
        then of how fast they grow with these fields.
    """
    of = measure(name)
    sums = None if of is None else of.sums(frame, about)
    assert of is not None and of.corrections is not None and sums is not None, f"{name} is not conserved"
    fields, growth = zip(*of.corrections(fields_of(frame, about), about), strict=True)
    places = [about.fields.index(field) for field in fields]
    return places, torch.cat([sums[:, :-1], torch.stack(growth, dim=1).sum(dim=CELLS)], dim=1)


def shifts(total: Tensor, sums: Tensor) -> Tensor:
    """Return the constants ``(b, k)`` to add to fields, from the total to keep ``(b, k)`` and the sums of `sums_of`."""
    found, growth = sums.chunk(2, dim=1)
    return ((total - found) / growth).where(growth != 0, 0.0)


def shifted(frame: Tensor, fields: Sequence[int], shift: Tensor) -> Tensor:
    """Return a frame ``(b, f, z, y, x)`` with the constants ``(b, k)`` added to some of its fields."""
    added = torch.zeros(frame.shape[:2], dtype=shift.dtype, device=frame.device)
    added[:, fields] = shift
    return frame + added[..., None, None, None].to(frame.dtype)


def _totals(frame: Tensor, about: FieldBatch) -> dict[str, Tensor]:
    """Return the totals ``(b, k)`` of the cells of a frame ``(b, f, z, y, x)``."""
    sums = {name: of.sums(frame, about) for name, of in measures_of(about) if of.corrections is not None}
    return {name: of_quantity[:, :-1] for name, of_quantity in sums.items() if of_quantity is not None}
