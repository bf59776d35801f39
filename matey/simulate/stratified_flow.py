"""Dry, compressible, stratified air in a vertical slice, with the numerics of ORNL's miniWeather.

The bubbles are set in ``thermals.py``. States hold departures from hydrostatic balance at constant potential
temperature, so that air at rest stays at rest on any grid:

    rho'_t         + (rho u)_x       + (rho w)_z        = 0
    (rho u)_t      + (rho u u + p)_x + (rho u w)_z      = 0
    (rho w)_t      + (rho u w)_x     + (rho w w + p')_z = -g rho'
    (rho theta)'_t + (rho u theta)_x + (rho w theta)_z  = 0

Axes: ``f`` field, ``z``, ``x``, ``b`` trajectory. The batch comes last, so that neighbours along z and x are whole blocks
of memory and operations on them stay long. Sums with a factor (``alpha=``) and ``pow`` would be faster still, but
torch rounds them differently in the last few numbers of a row, and a trajectory would depend on its place in the batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

WIDTH, HEIGHT = 2.0e4, 1.0e4  # m, of the slice: periodic along x, between solid walls along z
GRAVITY = 9.8  # m/s2
THETA = 300.0  # K, potential temperature of the background
HEAT_CAPACITY, GAS_CONSTANT = 1004.0, 287.0  # J/(kg K), at constant pressure and of dry air
SURFACE_PRESSURE = 1.0e5  # Pa
GAMMA = 1.40027894002789400278940027894
PRESSURE_FACTOR = 27.5629410929725921310572974482  # p = PRESSURE_FACTOR * (rho theta)^GAMMA
HYPERVISCOSITY = 0.05  # share of the shortest wave that a sweep removes
LARGEST_SPEED, COURANT = 450.0, 1.5  # m/s, sound and wind together, and cells that this speed may cross in a step

NUM_GHOSTS = 2
SCALE = 12  # factor of all fluxes until the end of a sweep: the denominator of the interpolation
SCALED_PRESSURE_FACTOR = PRESSURE_FACTOR * SCALE ** (1 - GAMMA)  # from 12 rho theta to 12 p
DENSITY, MOMENTUM_X, MOMENTUM_Z, DENSITY_THETA = range(4)


def background_density(height: Tensor) -> Tensor:
    """Return the density (kg/m3) of hydrostatic air of 300 K potential temperature at a height (m)."""
    exner = 1 - GRAVITY * height / (HEAT_CAPACITY * THETA)
    pressure = SURFACE_PRESSURE * exner ** (HEAT_CAPACITY / GAS_CONSTANT)
    return (pressure / PRESSURE_FACTOR) ** (1 / GAMMA) / THETA


@dataclass(frozen=True)
class Slice:
    """A grid of the slice.

    Attributes:
        num_z: cells between bottom and top.
        num_x: cells along x.
    """

    num_z: int
    num_x: int

    @property
    def spacing(self) -> tuple[float, float]:
        """Height and width of a cell (m)."""
        return HEIGHT / self.num_z, WIDTH / self.num_x

    @property
    def largest_step(self) -> float:
        """The step (s) that miniWeather takes on this grid."""
        return COURANT * min(self.spacing) / LARGEST_SPEED

    def z_centres(self, num_ghosts: int = 0) -> Tensor:
        """Return the heights of the cell centres (m), ``(z)``."""
        return (torch.arange(-num_ghosts, self.num_z + num_ghosts, dtype=torch.float64) + 0.5) * self.spacing[0]

    def x_centres(self) -> Tensor:
        """Return the positions of the cell centres along x (m), ``(x)``."""
        return (torch.arange(self.num_x, dtype=torch.float64) + 0.5) * self.spacing[1]


class StratifiedFlow:
    """Steps a batch of slices in place, in memory allocated once.

    Args:
        grid: the grid of every slice.
        state: ``(f, z, x, b)``, the initial state, which is copied.
    """

    def __init__(self, grid: Slice, state: Tensor) -> None:
        self.grid, self.num_steps = grid, 0
        num_z, num_x, num_trajectories = grid.num_z, grid.num_x, state.shape[-1]
        padded = 4, num_z + 2 * NUM_GHOSTS, num_x + 2 * NUM_GHOSTS, num_trajectories
        self._now, self._stage = torch.zeros(padded, dtype=torch.float64), torch.zeros(padded, dtype=torch.float64)
        self.state.copy_(state)
        faces = ((4, num_z + 1, num_x, num_trajectories), (4, num_z, num_x + 1, num_trajectories))
        self._scratch = [[torch.empty(shape, dtype=torch.float64) for _ in range(3)] for shape in faces]

        face_heights = torch.arange(num_z + 1, dtype=torch.float64) * grid.spacing[0]
        self._ghost_density = _column(background_density(grid.z_centres(NUM_GHOSTS)))
        self._density = [_column(background_density(heights)) for heights in (face_heights, grid.z_centres())]
        self._face_pressure = _scaled_pressure(self._density[0] * (SCALE * THETA))

    @property
    def state(self) -> Tensor:
        """Departures from the background ``(f, z, x, b)``, a view."""
        return _inside(self._now)

    def step(self, time_step: float) -> None:
        """Advance by one step, a sweep along each axis; the axis of the first sweep alternates."""
        for axis in (1, 0) if self.num_steps % 2 == 0 else (0, 1):
            # Wicker and Skamarock 2002, Mon. Weather Rev. 130, 2088, with stages of a third, a half and a whole step.
            self._sweep(axis, self._now, self._stage, time_step / 3)
            self._sweep(axis, self._stage, self._stage, time_step / 2)
            self._sweep(axis, self._stage, self._now, time_step)
        self.num_steps += 1

    def _sweep(self, axis: int, source: Tensor, target: Tensor, time_step: float) -> None:
        """Set ``target = now + time_step * rate(source)`` with the fluxes along one axis (0 for z, 1 for x)."""
        self._fill_ghosts(axis, source)
        scratch, dim, spacing = self._scratch[axis], 1 + axis, self.grid.spacing[axis]
        cells = source[:, NUM_GHOSTS:-NUM_GHOSTS] if axis else source[:, :, NUM_GHOSTS:-NUM_GHOSTS]
        before, left, right, after = (cells.narrow(dim, offset, scratch[0].shape[dim]) for offset in range(4))

        # Fourth-order interpolation to faces, without its denominator.
        near, far = torch.add(left, right, out=scratch[0]), torch.add(before, after, out=scratch[1])
        scaled = near.mul_(7).sub_(far)
        third_difference = torch.sub(after, before, out=scratch[1])
        third_difference.sub_(torch.sub(right, left, out=scratch[2]).mul_(3))
        flux = self._flux(axis, scaled, scratch[2])
        if axis == 0:
            third_difference[DENSITY, 0], third_difference[DENSITY, -1] = 0, 0  # walls let no mass through
        flux.add_(third_difference.mul_(SCALE * HYPERVISCOSITY * spacing / (16 * time_step)))

        rate = scratch[0].narrow(dim, 0, scratch[0].shape[dim] - 1)
        torch.sub(flux.narrow(dim, 0, rate.shape[dim]), flux.narrow(dim, 1, rate.shape[dim]), out=rate)
        if axis == 0:
            rate[MOMENTUM_Z].sub_(cells[DENSITY, NUM_GHOSTS:-NUM_GHOSTS] * (SCALE * spacing * GRAVITY))
        torch.add(self.state, rate.mul_(time_step / (SCALE * spacing)), out=_inside(target))

    def _fill_ghosts(self, axis: int, padded: Tensor) -> None:
        """Set the cells beyond both ends of an axis: copies of the other end along x, free slip along the walls in z."""
        if axis == 1:
            padded[:, :, :NUM_GHOSTS] = padded[:, :, -2 * NUM_GHOSTS : -NUM_GHOSTS]
            padded[:, :, -NUM_GHOSTS:] = padded[:, :, NUM_GHOSTS : 2 * NUM_GHOSTS]
            return
        density = self._ghost_density
        for ghosts, wall in ((slice(0, NUM_GHOSTS), NUM_GHOSTS), (slice(-NUM_GHOSTS, None), -NUM_GHOSTS - 1)):
            padded[:, ghosts] = padded[:, wall, None]
            padded[MOMENTUM_X, ghosts] *= density[ghosts] / density[wall]
            padded[MOMENTUM_Z, ghosts] = 0

    def _flux(self, axis: int, scaled: Tensor, flux: Tensor) -> Tensor:
        """Write to ``flux`` the flux along an axis from values at faces, all ``(f, z, x, b)`` and times SCALE."""
        density, density_theta = scaled[DENSITY], scaled[DENSITY_THETA]
        momentum = scaled[MOMENTUM_X if axis else MOMENTUM_Z]
        if axis == 0:
            momentum[0], momentum[-1] = 0, 0  # nothing goes through the walls
        wind = torch.div(momentum, density.add_(self._density[axis] * SCALE))
        density_theta.add_(self._density[axis] * (SCALE * THETA))
        torch.mul(scaled, wind, out=flux)
        flux[DENSITY] = momentum
        pressure = _scaled_pressure(density_theta)
        if axis == 0:
            pressure.sub_(self._face_pressure)  # p', which acts against gravity on the departure of density
        flux[MOMENTUM_X if axis else MOMENTUM_Z].add_(pressure)
        return flux


def _inside(padded: Tensor) -> Tensor:
    return padded[:, NUM_GHOSTS:-NUM_GHOSTS, NUM_GHOSTS:-NUM_GHOSTS]


def _column(values: Tensor) -> Tensor:
    return values[:, None, None]  # (z, x, b)


def _scaled_pressure(scaled_density_theta: Tensor) -> Tensor:
    """Turn density times potential temperature into pressure in place, both times SCALE."""
    return scaled_density_theta.log_().mul_(GAMMA).exp_().mul_(SCALED_PRESSURE_FACTOR)
