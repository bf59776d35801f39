"""Physical measures of whole frames: the drift of conserved quantities, and the divergence of vector fields.

Each is a `Measure`: sums over the cells of a frame, which can be added over parts of a field and so over ranks, and a number
computed from them. Evaluation reports it for the forecast and for the truth, where it shows the error of grid and file.

Conserved quantities of MATEY's own systems are declared here alone, in `CONSERVED`; those of a user's system in the
description of its data (`FieldBatch.conserved`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from matey.fields import FieldBatch, without_gaps
from matey.registry import Registry

CELLS = (-3, -2, -1)
ADIABATIC_INDEX = 5 / 3
"""Ratio of specific heats of PDEBench's gas (Takamoto et al. 2022, ``CFD_multi_Hydra.py``)."""

CONSERVED: Mapping[str, tuple[str, ...]] = {
    "compressible_rand": ("mass", "momentum", "energy"),
    "compressible_turb": ("mass", "momentum", "energy"),
    "colliding_thermals": ("mass", "momentum", "heat"),
}
"""Quantities that the equations and boundaries of each system conserve, by their names in `MEASURES`.

Momentum is conserved along periodic axes only: walls take up the other components. Quantities that flow out (shallow water),
react (diffusion-reaction) or are driven (the box of incompressible flow, the cavity) are not conserved.
"""

Fields = Mapping[str, Tensor]
"""Fields ``(b, z, y, x)`` of a frame by their names, in float64."""

Corrections = Callable[[Fields, FieldBatch], list[tuple[str, Tensor]]]
"""See `Measure.corrections`."""


@dataclass(frozen=True)
class Measure:
    """A number of a frame that every evaluation reports for forecasts and for the truth.

    Attributes:
        label: name in tables.
        meaning: sentence or two that explain it in a report.
        sums: function of a frame ``(b, f, z, y, x)`` in physical units and of its batch, which has names, spacing and
            boundaries. It returns sums over the cells ``(b, k)``, or None for a system without this quantity.
        value: function of the sums of a frame and of those of the last known frame that returns ``(b,)``.
        is_of_cells: whether each cell contributes to the sums by its own values alone; only then is the measure reported for
            fields split over ranks.
        corrections: function of a frame's fields that returns, for each component of a conserved quantity, the name of a
            field, and how fast the component grows per volume, ``(b, z, y, x)``, where this field grows. A shift of the field
            by a constant corrects the component, see `matey.evaluate.rollout`. None for other measures.
    """

    label: str
    meaning: str
    sums: Callable[[Tensor, FieldBatch], Tensor | None]
    value: Callable[[Tensor, Tensor], Tensor]
    is_of_cells: bool = False
    corrections: Corrections | None = None

    def number(self, frame: Tensor, batch: FieldBatch) -> Tensor | None:
        """Return the number ``(b,)`` of a frame that follows a batch's history; None for a system without this quantity."""
        sums, before = self.sums(frame, batch), self.sums(batch.last, batch)
        return None if sums is None or before is None else self.value(sums, before)


def conserved(
    is_kept: Callable[[FieldBatch], bool],
    label: str,
    meaning: str,
    densities: Callable[[Fields, FieldBatch], list[Tensor] | None],
    corrections: Corrections | None = None,
) -> Measure:
    """Return the measure of the gain or loss of a conserved quantity since the last known frame.

    Args:
        is_kept: function that returns whether the system of a batch conserves the quantity.
        label: see `Measure`.
        meaning: see `Measure`.
        densities: function of a frame's fields that returns the components ``(b, z, y, x)`` of the quantity per volume; None
            if fields are missing.
        corrections: see `Measure`.
    """

    def sums(frame: Tensor, batch: FieldBatch) -> Tensor | None:
        if not is_kept(batch):
            return None
        components = densities(fields_of(frame, batch), batch)
        if not components:
            return None
        held = without_gaps(torch.stack(components, dim=1))  # (b, k, z, y, x)
        size = torch.linalg.vector_norm(held, dim=1, keepdim=True)
        return torch.cat([held, size], dim=1).sum(dim=CELLS)

    return Measure(label, meaning, sums, _drift, is_of_cells=True, corrections=corrections)


def fields_of(frame: Tensor, batch: FieldBatch) -> Fields:
    """Return the fields of a frame ``(b, f, z, y, x)`` by their names."""
    return dict(zip(batch.fields, frame.double().unbind(1), strict=True))


def _known(name: str) -> Callable[[FieldBatch], bool]:
    """Return a function that says whether `CONSERVED` lists a quantity for the system of a batch."""
    return lambda batch: name in CONSERVED.get(batch.system, ())


def _drift(sums: Tensor, before: Tensor) -> Tensor:
    """Return the change of the totals over the total magnitude, from sums ``(b, k + 1)`` whose last is the magnitude."""
    change = torch.linalg.vector_norm(sums[:, :-1] - before[:, :-1], dim=1)
    size = torch.maximum(sums[:, -1], before[:, -1])
    return (change / size).where((change != 0) | (size != 0), 0.0)


def _mass(fields: Fields, batch: FieldBatch) -> list[Tensor] | None:
    return [fields["density"]] if "density" in fields else None


def _momentum(fields: Fields, batch: FieldBatch) -> list[Tensor] | None:
    components = components_of("velocity", batch)
    if components is None or "density" not in fields:
        return None
    return [fields["density"] * fields[name] for name in _along_periodic_axes(batch)]


def _along_periodic_axes(batch: FieldBatch) -> list[str]:
    return [name for axis, name in (components_of("velocity", batch) or {}).items() if batch.periodic[axis]]


def _energy(fields: Fields, batch: FieldBatch) -> list[Tensor] | None:
    components = components_of("velocity", batch)
    if components is None or not {"density", "pressure"} <= fields.keys():
        return None
    squares = torch.stack([fields[name].square() for name in components.values()]).sum(dim=0)
    return [fields["pressure"] / (ADIABATIC_INDEX - 1) + fields["density"] * squares / 2]


def _heat(fields: Fields, batch: FieldBatch) -> list[Tensor] | None:
    if not {"density", "potential_temperature"} <= fields.keys():
        return None
    return [fields["density"] * fields["potential_temperature"]]


def components_of(vector: str, batch: FieldBatch) -> dict[int, str] | None:
    """Return the names of a vector's components by axis, 0 to 2 for ``z, y, x``, for axes with more than one cell.

    The vertical axis of a slice of an atmosphere is ``y``, but its component keeps the name ``_z``. None if a component is
    missing.
    """
    names = {}
    for axis, letter in enumerate("zyx"):
        if batch.grid[axis] > 1:
            choices = [f"{vector}_{letter}"] + ([f"{vector}_z"] if letter == "y" and batch.grid[0] == 1 else [])
            found = next((name for name in choices if name in batch.fields), None)
            if found is None:
                return None
            names[axis] = found
    return names or None


def divergence(vector: str, label: str, meaning: str) -> Measure:
    """Return the measure of a vector field's divergence, by central differences of cells that have both neighbours.

    Its value is the root mean square of the divergence over that of its terms, the derivatives: 0 for a field without
    divergence on this grid, about 1 for a field with unrelated components.
    """

    def sums(frame: Tensor, batch: FieldBatch) -> Tensor | None:
        components = components_of(vector, batch)
        if components is None:
            return None
        terms = [_slope(frame[:, batch.fields.index(name)].double(), axis, batch) for axis, name in components.items()]
        stacked = torch.stack(terms, dim=1)  # (b, k, z, y, x), without the outermost cells of non-periodic axes
        squares = torch.stack([stacked.sum(dim=1).square(), stacked.square().sum(dim=1)], dim=1)
        return without_gaps(squares).sum(dim=CELLS)

    return Measure(label, meaning, sums, lambda sums, _: (sums[:, 0] / sums[:, 1]).sqrt().where(sums[:, 1] != 0, 0.0))


def _slope(field: Tensor, axis: int, batch: FieldBatch) -> Tensor:
    """Return the central difference of ``(b, z, y, x)`` along an axis, at cells with neighbours along all axes."""
    slope = (field.roll(-1, axis + 1) - field.roll(1, axis + 1)) / (2 * batch.spacing[axis])
    for other, (cells, wraps) in enumerate(zip(batch.grid, batch.periodic, strict=True), start=1):
        if cells > 1 and not wraps:
            slope = slope.narrow(other, 1, max(0, cells - 2))
    return slope


MASS = conserved(
    _known("mass"),
    "drift of mass",
    "Change of the total since the last known frame, over the total.",
    _mass,
    lambda fields, batch: [("density", torch.ones_like(fields["density"]))],
)
MOMENTUM = conserved(
    _known("momentum"),
    "drift of momentum",
    "Change of the sum of momentum along periodic axes since the last known frame, over the sum of its magnitude.",
    _momentum,
    lambda fields, batch: [(name, fields["density"]) for name in _along_periodic_axes(batch)],
)
ENERGY = conserved(
    _known("energy"),
    "drift of energy",
    "Change of the sum of internal and kinetic energy since the last known frame, over the sum.",
    _energy,
    lambda fields, batch: [("pressure", torch.full_like(fields["pressure"], 1 / (ADIABATIC_INDEX - 1)))],
)
HEAT = conserved(
    _known("heat"),
    "drift of heat",
    "Change of the sum of density times potential temperature since the last known frame, over the sum.",
    _heat,
    lambda fields, batch: [("potential_temperature", fields["density"])],
)
DIVERGENCE = (
    "Root mean square of the divergence over that of the derivatives it is the sum of: 0 is free of it, 1 is noise."
)
VELOCITY = divergence("velocity", "divergence of velocity", DIVERGENCE)
MAGNETIC = divergence("magnetic", "divergence of the magnetic field", DIVERGENCE)

MEASURES: Registry[Measure] = Registry(
    "physical measure",
    "matey.measures",
    {
        "mass": "matey.physics:MASS",
        "momentum": "matey.physics:MOMENTUM",
        "energy": "matey.physics:ENERGY",
        "heat": "matey.physics:HEAT",
        "divergence_velocity": "matey.physics:VELOCITY",
        "divergence_magnetic": "matey.physics:MAGNETIC",
    },
    type="matey.physics:Measure",
)
"""All measures that are reported of forecasts and truth beside errors, in this order."""

TOTAL = "total_"
"""Prefix of the names of measures of a field's sum in records."""


def measures_of(batch: FieldBatch) -> Iterator[tuple[str, Measure]]:
    """Yield the names and measures to report for a batch; a measure gives None for a system without its quantity."""
    yield from MEASURES.items()
    yield from ((TOTAL + field, _total(field)) for field in batch.conserved)


def measure(name: str) -> Measure | None:
    """Return the measure with a name from a record; None if no measure here has that name."""
    if name in MEASURES:
        return MEASURES[name]
    return _total(name.removeprefix(TOTAL)) if name.startswith(TOTAL) else None


def _total(field: str) -> Measure:
    return conserved(
        lambda batch: field in batch.conserved,
        f"drift of total {field}",
        "Change of the sum of the field since the last known frame, over the sum of its size.",
        lambda fields, batch: [fields[field]],
        lambda fields, batch: [(field, torch.ones_like(fields[field]))],
    )
