"""A second-order finite-volume engine for hyperbolic conservation laws on uniform grids, whatever the law.

The engine reconstructs, exchanges fluxes and knows the largest stable step. A law defines the conserved
fields and the flux between two states at a face (``shallow_water.py``); ``time_stepping.py`` advances the state. Terms
that are not such fluxes, such as viscosity, are added to ``FiniteVolume.rate`` by the solver that has them.

Axes: ``b`` trajectory, ``f`` field, then the grid's axes. The component of a vector along grid axis ``a`` follows the
scalars in the order of the axes, so that laws and boundaries find it from ``axis`` alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

NUM_GHOSTS = 2  # cells beyond each wall: a limited slope in the first of them needs a second
COURANT = 0.8
"""Distance that waves may travel in a step, in cells summed over the axes.

Up to 1 is stable, but at 0.9 the limiter damps smooth waves and they converge with first order only.
"""


class ConservationLaw(Protocol):
    """The physics that the engine needs. States hold conserved fields, reconstruction acts on primitive ones."""

    def primitive(self, state: Tensor) -> Tensor:
        """Turn conserved into primitive fields, both ``(b, f, ...)``."""

    def speed(self, primitive: Tensor, axis: int) -> Tensor:
        """Return the largest characteristic speed of each cell along a grid axis, ``(b, ...)``."""

    def numerical_flux(self, left: Tensor, right: Tensor, axis: int) -> Tensor:
        """Return the flux of the conserved fields through faces between primitive states, all ``(b, f, ...)``."""


Boundary = Callable[[Tensor, int], Tensor]


def extrapolation(primitive: Tensor, axis: int) -> Tensor:
    """Pad a grid axis with copies of its outermost cells, through which waves leave."""
    dim = 2 + axis
    first, last = primitive.narrow(dim, 0, 1), primitive.narrow(dim, -1, 1)
    return torch.cat([first] * NUM_GHOSTS + [primitive] + [last] * NUM_GHOSTS, dim)


def periodic(primitive: Tensor, axis: int) -> Tensor:
    """Pad a grid axis with the cells of its other end."""
    dim = 2 + axis
    first, last = primitive.narrow(dim, 0, NUM_GHOSTS), primitive.narrow(dim, -NUM_GHOSTS, NUM_GHOSTS)
    return torch.cat((last, primitive, first), dim)


def limited_half_slope(before: Tensor, after: Tensor) -> Tensor:
    """Return half the slope of a field inside each cell from its differences to both neighbours, all of one shape.

    It is van Leer's monotonized central slope (1977, J. Comput. Phys. 23, 276): the central difference, but at most
    twice either one-sided difference, and zero at an extremum.
    """
    lower = torch.maximum(before, after).clamp_(max=0)
    upper = torch.minimum(before, after).clamp_(min=0)
    return (before + after).mul_(0.25).clamp_(lower, upper)


@dataclass(frozen=True)
class FiniteVolume:
    """A conservation law on a uniform grid.

    Attributes:
        law: the physics.
        spacing: cell size along each grid axis.
        boundary: function for each grid axis that continues the field beyond both of its ends.
    """

    law: ConservationLaw
    spacing: tuple[float, ...]
    boundary: tuple[Boundary, ...]

    def rate(self, state: Tensor) -> Tensor:
        """Return ``-div F`` of a state ``(b, f, ...)``, of the same shape.

        All axes are taken at once rather than one after the other, so a symmetric state stays symmetric to the bit.
        """
        primitive = self.law.primitive(state)
        total = torch.zeros_like(state)
        for axis, (spacing, pad) in enumerate(zip(self.spacing, self.boundary, strict=True)):
            left, right = _face_states(pad(primitive, axis), 2 + axis)
            flux = self.law.numerical_flux(left, right, axis)
            total -= flux.diff(dim=2 + axis).div_(spacing)
        return total

    def largest_step(self, state: Tensor, time: Tensor | None = None) -> Tensor:
        """Return the largest stable step of each trajectory, ``(b)``; ``time`` is ignored."""
        primitive = self.law.primitive(state)
        crossings = sum(
            (self.law.speed(primitive, axis) / spacing for axis, spacing in enumerate(self.spacing)),
            start=primitive.new_zeros(()),
        )
        return COURANT / crossings.flatten(1).amax(1)


def _face_states(padded: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Return the states left and right of the ``n + 1`` faces along ``dim`` from ``n + 4`` cells, by limited slopes."""
    num_cells = padded.shape[dim] - 2 * NUM_GHOSTS
    difference = padded.diff(dim=dim)
    half_slope = limited_half_slope(difference.narrow(dim, 0, num_cells + 2), difference.narrow(dim, 1, num_cells + 2))
    centre = padded.narrow(dim, 1, num_cells + 2)
    left = centre.narrow(dim, 0, num_cells + 1) + half_slope.narrow(dim, 0, num_cells + 1)
    right = centre.narrow(dim, 1, num_cells + 1) - half_slope.narrow(dim, 1, num_cells + 1)
    return left, right
