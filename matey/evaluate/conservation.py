"""Keeps what a system conserves in rollouts: after each forecast, fields are shifted by constants.

For each component of a conserved quantity, one field is shifted so that the component has the total of the last known frame:
the density for mass, then velocities for momentum, then the pressure for energy. Each forecast misses these totals a little;
without the shifts such errors add up over a rollout, even where the fields themselves decay.

The quantities are those of `matey.physics`. Nothing is asked of the model.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from matey.data import TrajectorySet
from matey.data.reading import samples_of
from matey.evaluate.histories import OwnCells, described
from matey.fields import FieldBatch, without_gaps
from matey.physics import CELLS, TOTAL, Measure, fields_of, measures_of

Totals = Mapping[str, Tensor]
"""Totals ``(b, k)`` of the components of conserved quantities, by the names of their measures."""


def conserved_by(about: FieldBatch) -> dict[str, Measure]:
    """Return the measures of what is conserved, by name; only one cell of a batch is looked at."""
    cell = about.last[..., :1, :1, :1]
    kept = ((name, of) for name, of in measures_of(about) if of.corrections is not None)
    return {name: of for name, of in kept if of.sums(cell, about) is not None}


def kept_names(data: TrajectorySet, trajectory: int = 0) -> list[str]:
    """Return the names of the quantities that rollouts of a trajectory keep."""
    about = described(samples_of(data, [trajectory], 1), slice(0, 1))
    return [name.removeprefix(TOTAL) for name in conserved_by(about)]


def kept_note(data: TrajectorySet, trajectory: int = 0) -> str:
    """Return a sentence that says which quantities rollouts of a trajectory keep."""
    if names := kept_names(data, trajectory):
        return f"Rollouts of {data.system} keep the totals of: {', '.join(names)}."
    return (
        f"Rollouts of {data.system} keep no totals: nothing is known to be conserved. A description of the data can name "
        "fields that are, with the key conserved."
    )


def totals_of(frame: Tensor, cells: OwnCells) -> Totals:
    """Return the totals of a frame ``(k, f, z, y, x)`` in own cells; empty if nothing is known to be conserved."""
    sums = {name: _sums(of, frame, cells) for name, of in conserved_by(cells.about).items()}
    return {name: of_quantity.chunk(2, dim=1)[0] for name, of_quantity in sums.items()}


def kept(frame: Tensor, cells: OwnCells, totals: Totals) -> Tensor:
    """Return a predicted frame ``(k, f, z, y, x)`` in own cells, shifted so that it has the totals."""
    for name, of in conserved_by(cells.about).items() if totals else ():
        found, growth = _sums(of, frame, cells).chunk(2, dim=1)
        shift = ((totals[name] - found) / growth).where(growth != 0, 0.0)  # (b, k)
        added = torch.zeros(frame.shape[:2], dtype=shift.dtype, device=frame.device)
        corrected = (field for field, _ in _corrections(of, frame[..., :1, :1, :1], cells))
        added[:, [*map(cells.about.fields.index, corrected)]] = shift[cells.own]
        frame = frame + added[..., None, None, None].to(frame.dtype)
    return frame


def _sums(of: Measure, frame: Tensor, cells: OwnCells) -> Tensor:
    """Return sums ``(b, 2 k)`` of a quantity's components, then of how fast they grow with the fields that correct them."""

    def sums_of(slab: Tensor) -> Tensor:
        sums = of.sums(slab, cells.about)
        assert sums is not None, f"{of.label} of a system that does not conserve it"
        fields = fields_of(slab, cells.about)
        growth = [rate.where(~fields[name].isnan(), 0) for name, rate in _corrections(of, slab, cells)]
        return torch.cat([sums[:, :-1], without_gaps(torch.stack(growth, dim=1)).sum(dim=CELLS)], dim=1)

    return cells.summed(sums_of, frame)


def _corrections(of: Measure, frame: Tensor, cells: OwnCells) -> list[tuple[str, Tensor]]:
    """Return the field that corrects each component, and how fast the component grows with it, ``(k, z, y, x)``."""
    assert of.corrections is not None, f"{of.label} is not conserved"
    return of.corrections(fields_of(frame, cells.about), cells.about)
