"""The compressible flow of an ideal gas in a periodic square as PDEBench computes it, from any initial state.

    rho_t + div(rho v) = 0
    (rho v)_t + div(rho v v + p) = div s
    E_t + div((E + p) v) = div(s v)              E = p / (gamma - 1) + rho v^2 / 2
    s_aa = rho (4/3 eta + zeta) d_a v_a          s_ac = rho eta d_a v_c for the flux along a of component c

This stress is that of PDEBench's files (``CFD_multi_Hydra.py``), not the one its paper prints (Takamoto et al. 2022, eq. 8):
``eta`` and ``zeta`` are kinematic, of dimension length^2 / time, and what would couple the axes is left out. With the
paper's, velocities are 100 % off the files after one unit of time; with this one, 0.5 %. Heat is not conducted. The
initial states are in ``compressible_initial.py``.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from matey.simulate.finite_volume import FiniteVolume, periodic
from matey.simulate.time_stepping import heun, integrate

ADIABATIC_INDEX = 5 / 3
FRAME_INTERVAL = 0.05
LEAST_PRESSURE = 1e-6  # which a cell is given when kinetic energy rounds all of its energy away, behind strong shocks


@dataclass(frozen=True)
class Gas:
    """What the gas is made of.

    Attributes:
        shear_viscosity: eta, kinematic.
        bulk_viscosity: zeta, kinematic.
        adiabatic_index: gamma, the ratio of specific heats.
    """

    shear_viscosity: float = 0.0
    bulk_viscosity: float = 0.0
    adiabatic_index: float = ADIABATIC_INDEX

    @property
    def longitudinal_viscosity(self) -> float:
        """The viscosity against stretching along an axis."""
        return self.bulk_viscosity + 4 / 3 * self.shear_viscosity


def navier_stokes(initial: Tensor, times: Tensor, gas: Gas) -> Tensor:
    """Let gas flow in the periodic unit square.

    Args:
        initial: density, pressure and velocity in units of which the square is one wide, ``(b, f, x, y)``.
        times: ``(t)``, increasing.
        gas: its properties.

    Returns:
        The same fields at each of the times, ``(b, t, f, x, y)``, float64.
    """
    initial = initial.to(torch.float64)
    law = IdealGas(gas.adiabatic_index)
    spacing = tuple(1 / num_cells for num_cells in initial.shape[2:])
    solver = _ViscousFlow(FiniteVolume(law, spacing, (periodic, periodic)), law, gas)
    frames = initial.new_empty(initial.shape[0], len(times), *initial.shape[1:])  # (b, t, f, x, y)
    states = integrate(law.conserved(initial), times, solver.rate, solver.largest_step, heun)
    for index, state in enumerate(states):
        frames[:, index] = law.primitive(state)
    return frames


@dataclass(frozen=True)
class IdealGas:
    """The law of density, energy and momentum on any number of axes; primitive fields are density, pressure, velocity."""

    adiabatic_index: float = ADIABATIC_INDEX

    def primitive(self, state: Tensor) -> Tensor:
        """Turn density, energy and momentum into density, pressure and velocity, both ``(b, f, ...)``."""
        primitive = state.clone()
        primitive[:, 2:] /= state[:, :1]
        kinetic = (state[:, 2:] * primitive[:, 2:]).sum(1).mul_(0.5)
        primitive[:, 1].sub_(kinetic).mul_(self.adiabatic_index - 1).clamp_(min=LEAST_PRESSURE)
        return primitive

    def conserved(self, primitive: Tensor) -> Tensor:
        """Turn density, pressure and velocity into density, energy and momentum, both ``(b, f, ...)``."""
        state = primitive.clone()
        state[:, 2:] *= primitive[:, :1]
        state[:, 1] = self._energy(primitive)
        return state

    def speed(self, primitive: Tensor, axis: int) -> Tensor:
        """Return ``|v| + c`` along a grid axis, ``(b, ...)``."""
        return primitive[:, 2 + axis].abs() + self._sound(primitive)

    def numerical_flux(self, left: Tensor, right: Tensor, axis: int) -> Tensor:
        """Return the HLLC flux of density, energy and momentum, all ``(b, f, ...)``.

        Source: Toro, Spruce and Speares 1994, Shock Waves 4, 25, with Davis's bounds on the speeds of the two outer
        waves. The contact between them tells which of the two sides reaches the face; density and velocity along the
        face are that side's, so a contact or a shear layer that rests on a face stays sharp.
        """
        normal = 2 + axis
        sound = torch.maximum(self._sound(left), self._sound(right))
        slowest = torch.minimum(left[:, normal], right[:, normal]) - sound
        fastest = torch.maximum(left[:, normal], right[:, normal]) + sound
        inflow_left = left[:, 0] * (left[:, normal] - slowest)  # through the outer waves, both positive
        inflow_right = right[:, 0] * (fastest - right[:, normal])
        push = inflow_left * left[:, normal] + inflow_right * right[:, normal] + left[:, 1] - right[:, 1]
        contact = push / (inflow_left + inflow_right)

        from_left = contact >= 0
        side = torch.where(from_left[:, None], left, right)
        wave = torch.where(from_left, slowest, fastest)
        velocity = side[:, normal]
        # Beyond the outer wave, the side is as it was; within, it has the speed of the contact.
        speed = torch.where((slowest >= 0) | (fastest <= 0), velocity, contact)
        compression = (wave - velocity) / (wave - speed)
        pressure = side[:, 1] + side[:, 0] * (wave - velocity) * (speed - velocity)
        mass = side[:, 0] * speed * compression
        work = (pressure * speed - side[:, 1] * velocity) / (wave - speed)

        flux = mass[:, None] * side
        flux[:, 0] = mass
        flux[:, 1] = speed * (self._energy(side) * compression + work + pressure)
        flux[:, normal] = mass * speed + pressure
        return flux

    def _sound(self, primitive: Tensor) -> Tensor:
        return (self.adiabatic_index * primitive[:, 1] / primitive[:, 0]).sqrt_()

    def _energy(self, primitive: Tensor) -> Tensor:
        kinetic = primitive[:, 2:].square().sum(1).mul_(primitive[:, 0]).mul_(0.5)
        return kinetic.add_(primitive[:, 1], alpha=1 / (self.adiabatic_index - 1))


@dataclass(frozen=True)
class _ViscousFlow:
    """What ``integrate`` asks of the whole: fluxes between cells by the engine, viscous stress by central differences."""

    inviscid: FiniteVolume
    law: IdealGas
    gas: Gas

    def rate(self, state: Tensor) -> Tensor:
        """Return the time derivative of a state ``(b, f, x, y)``, of the same shape."""
        total = self.inviscid.rate(state)
        if self.gas.shear_viscosity == self.gas.bulk_viscosity == 0:
            return total
        density, velocity = state[:, :1], state[:, 2:] / state[:, :1]
        for axis, spacing in enumerate(self.inviscid.spacing):
            stress, face_velocity = self._stress(density, velocity, axis)  # both (b, component, x, y)
            dim = 2 + axis
            total[:, 2:] += (stress - stress.roll(1, dim)).div_(spacing)
            work = (stress * face_velocity).sum(1)
            total[:, 1] += (work - work.roll(1, dim - 1)).div_(spacing)
        return total

    def largest_step(self, state: Tensor, time: Tensor) -> Tensor:
        """Return the step ``(b)`` that is stable for sound and for viscosity at once."""
        step = self.inviscid.largest_step(state)
        fastest = 4 * sum(self.gas.longitudinal_viscosity / spacing**2 for spacing in self.inviscid.spacing)
        return 1 / (1 / step + fastest / 2)

    def _stress(self, density: Tensor, velocity: Tensor, axis: int) -> tuple[Tensor, Tensor]:
        """Return the stress on the faces above each cell along an axis, and the velocity there, ``(b, component, x, y)``."""
        dim = 2 + axis
        next_density, next_velocity = density.roll(-1, dim), velocity.roll(-1, dim)
        stress = (next_velocity - velocity).mul_((density + next_density).mul_(0.5 / self.inviscid.spacing[axis]))
        along = torch.full((stress.shape[1], 1, 1), self.gas.shear_viscosity, dtype=stress.dtype)
        along[axis] = self.gas.longitudinal_viscosity
        return stress.mul_(along), (velocity + next_velocity).mul_(0.5)
