"""Incompressible flow of a fluid in a closed box, stirred by a static force that acts on a tracer.

    v_t + div(v v) + grad p = nu lap v + c f,     div v = 0,     v = 0 on the walls
    c_t + div(c v) = 0,                           no gradient of c into the walls

Velocity and force live on the faces between cells and the tracer in the cells (Harlow and Welch 1965, Phys. Fluids 8,
2182), so that a projection makes the flow divergence-free to round-off. PDEBench's initial noise is in
``incompressible_initial.py``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from matey.simulate.cosine_transform import cosine, inverse_cosine
from matey.simulate.finite_volume import NUM_GHOSTS, extrapolation, limited_half_slope
from matey.simulate.time_stepping import heun, integrate


@dataclass(frozen=True)
class Flow:
    """A flow at one or many times.

    Attributes:
        velocity: ``(..., 2, x, y)``, velocity on the upper face of each cell along x, then y; zero on the last faces,
            the walls.
        tracer: ``(..., x, y)``, concentration of the tracer in the cells.
    """

    velocity: Tensor
    tracer: Tensor

    def velocity_in_cells(self) -> Tensor:
        """Return the mean of the two faces of each cell, ``(..., 2, x, y)``."""
        return torch.stack([0.5 * (face + _lower(face, dim)) for face, dim in _by_axis(self.velocity)], dim=-3)


def flow_in_box(initial: Flow, force: Tensor, times: Tensor, viscosity: float, lid_speed: float = 0.0) -> Flow:
    """Let a fluid flow in the unit square.

    Args:
        initial: velocity ``(b, 2, x, y)`` and tracer ``(b, x, y)`` at ``times[0]``; need not be divergence-free.
        force: ``(..., 2, x, y)``, force on the faces, placed like the velocity.
        times: ``(t)``, increasing.
        viscosity: kinematic viscosity nu.
        lid_speed: speed along x of the upper wall in y.

    Returns:
        Velocity ``(b, t, 2, x, y)`` and tracer ``(b, t, x, y)``, float64; divergence-free from the first frame on.
    """
    resolution = initial.tracer.shape[-1]
    box = _Box(force.to(torch.float64), viscosity, lid_speed, 1 / resolution, _eigenvalues(resolution))
    velocity = box.project(initial.velocity.to(torch.float64))
    state = torch.cat((velocity, initial.tracer.to(torch.float64).unsqueeze(1)), dim=1)  # (b, f, x, y)
    frames = torch.stack(list(integrate(state, times, box.rate, box.largest_step, heun)), dim=1)  # (b, t, f, x, y)
    return Flow(frames[:, :, :2], frames[:, :, 2])


@dataclass(frozen=True)
class _Box:
    """Rate and step of states ``(b, f, x, y)``: velocity on the faces, then the tracer."""

    force: Tensor
    viscosity: float
    lid_speed: float
    spacing: float
    eigenvalues: Tensor  # those of the Laplacian without flux through the walls, in the order of its cosines

    def rate(self, state: Tensor) -> Tensor:
        """Return the time derivative, of the state's shape; that of the velocity is divergence-free."""
        velocity, tracer = state[:, :2], state[:, 2]
        rate = torch.empty_like(state)
        rate[:, :2] = self.project(self._acceleration(velocity, tracer))
        rate[:, 2] = self._tracer_rate(velocity, tracer)
        return rate

    def largest_step(self, state: Tensor, time: Tensor) -> Tensor:
        """Return the step ``(b)``: half a cell for the fastest fluid, and within viscosity's stability limit."""
        crossings = state[:, :2].abs().sum(1).flatten(1).amax(1) / self.spacing
        return 1 / (crossings / 0.5 + 4 * self.viscosity / self.spacing**2)

    def project(self, velocity: Tensor) -> Tensor:
        """Return the divergence-free part of ``(b, 2, x, y)`` that does not cross the walls."""
        velocity = velocity.clone()
        for face, dim in _by_axis(velocity):
            face.select(dim, -1).zero_()
        differences = (face - _lower(face, dim) for face, dim in _by_axis(velocity))
        divergence = sum(differences, start=velocity.new_zeros(())) / self.spacing
        pressure = inverse_cosine(cosine(divergence) / self.eigenvalues)
        for face, dim in _by_axis(velocity):
            face.narrow(dim, 0, face.shape[dim] - 1).sub_(pressure.diff(dim=dim) / self.spacing)
        return velocity

    def _acceleration(self, velocity: Tensor, tracer: Tensor) -> Tensor:
        """Return the acceleration without pressure, ``(b, 2, x, y)``, by central differences; values on walls are ignored."""
        total = torch.empty_like(velocity)
        for (face, dim), (across, other) in zip(_by_axis(velocity), reversed(_by_axis(velocity)), strict=True):
            in_cells = 0.5 * (face + _lower(face, dim))
            along = _upper(in_cells.square(), dim) - in_cells.square()
            wall = 2 * self.lid_speed if dim == -2 else 0.0
            beyond = wall - face.narrow(other, -1, 1)  # ghost cells: their mean with the neighbours is the wall's speed
            upper = torch.cat((face.narrow(other, 1, face.shape[other] - 1), beyond), other)
            at_corner = 0.25 * (face + upper) * (across + _upper(across, dim))
            sideways = at_corner - _lower(at_corner, other)
            lower = torch.cat((-face.narrow(other, 0, 1), face.narrow(other, 0, face.shape[other] - 1)), other)
            curvature = _upper(face, dim) + _lower(face, dim) + upper + lower - 4 * face
            total.select(1, dim + 2).copy_(
                self.viscosity / self.spacing**2 * curvature
                - (along + sideways) / self.spacing
                + 0.5 * (tracer + _upper(tracer, dim)) * self.force.select(1, dim + 2)
            )
        return total

    def _tracer_rate(self, velocity: Tensor, tracer: Tensor) -> Tensor:
        """Return the tracer's rate, ``(b, x, y)``, upwind with limited slopes: no new extremum, and no tracer is lost."""
        total = torch.zeros_like(tracer)
        for face, dim in _by_axis(velocity):
            num_cells = tracer.shape[dim]
            padded = extrapolation(tracer.unsqueeze(1), dim + 2).squeeze(1).narrow(dim, NUM_GHOSTS - 1, num_cells + 2)
            difference = padded.diff(dim=dim)
            half_slope = limited_half_slope(difference.narrow(dim, 0, num_cells), difference.narrow(dim, 1, num_cells))
            carried = torch.where(face > 0, tracer + half_slope, _upper(tracer - half_slope, dim))
            flux = face * carried
            total -= (flux - _lower(flux, dim)) / self.spacing
        return total


def _by_axis(faces: Tensor) -> list[tuple[Tensor, int]]:
    """Return views of both components of ``(..., 2, x, y)``, each with the tensor axis along which it points."""
    return [(faces.select(-3, 0), -2), (faces.select(-3, 1), -1)]


def _lower(field: Tensor, dim: int) -> Tensor:
    """Return the value of the lower neighbour along an axis, zero beyond the wall."""
    return torch.cat((torch.zeros_like(field.narrow(dim, 0, 1)), field.narrow(dim, 0, field.shape[dim] - 1)), dim)


def _upper(field: Tensor, dim: int) -> Tensor:
    """Return the value of the upper neighbour along an axis, zero beyond the wall."""
    return torch.cat((field.narrow(dim, 1, field.shape[dim] - 1), torch.zeros_like(field.narrow(dim, 0, 1))), dim)


def _eigenvalues(resolution: int) -> Tensor:
    """Return the eigenvalues ``(k, l)`` of the five-point Laplacian on products of cosines; 1 instead of 0 for the mean."""
    along = -((2 * resolution * torch.sin(math.pi / (2 * resolution) * torch.arange(resolution).double())) ** 2)
    eigenvalues = along[:, None] + along
    eigenvalues[0, 0] = 1.0  # the mean of a divergence is zero
    return eigenvalues
