"""The compressible flow of an ideal gas in a periodic square as PDEBench computes it, from any initial state.

    rho_t + div(rho v) = 0
    (rho v)_t + div(rho v v + p) = div s
    E_t + div((E + p) v) = div(s v)              E = p / (gamma - 1) + rho v^2 / 2
    s_aa = rho (4/3 eta + zeta) d_a v_a          s_ac = rho eta d_a v_c for the flux along a of component c

This stress is that of PDEBench's files (``CFD_multi_Hydra.py``), not the one its paper prints (Takamoto et al. 2022):
``eta`` and ``zeta`` are kinematic, of dimension length^2 / time, and terms that couple the axes are left out. With the
paper's stress, velocities are 100 % off the files after one unit of time; with this one, less than 1 %. Heat is not
conducted.

The random initial states, ``rand`` and ``turbulence``, are sums of plane waves with random phases. Distributions are those of
``init_multi_HD_2DRand`` and ``init_multi_HD_2DTurb`` in ``pdebench/data_gen/data_gen_NLE/utils.py``; the numbers differ, since
PDEBench's come from JAX. Layout and names are those of the released ``2D_CFD_{Rand,Turb}_M*_Eta*_Zeta*_periodic_*_Train.hdf5``.
Beyond those, the root attribute ``config`` records how the file was made.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import h5py
import numpy as np
import torch
import yaml
from torch import Tensor

from matey.simulate.ensemble import Ensemble, System, Trajectory
from matey.simulate.finite_volume import FiniteVolume, periodic
from matey.simulate.layouts import Hdf5Layout
from matey.simulate.time_stepping import Rate, heun, integrate, legendre_limit, runge_kutta_legendre

ADIABATIC_INDEX = 5 / 3
FRAME_INTERVAL = 0.05
TYPICAL_SOUND = 3.0  # speed of sound in Rand, where it lies between 0.4 and 4
# Viscosities below this, relative to sound speed times cell size, are neglected: the 1e-8 of "inviscid" files is 1e-6 or less.
LEAST_VISCOSITY = 1e-4
# Floor for cells whose internal energy is lost to round-off in the total energy, behind strong shocks.
LEAST_PRESSURE = 1e-6
LONGITUDINAL = 7 / 3  # viscosity against stretching along an axis, 4/3 eta + zeta, over eta = zeta


def navier_stokes(initial: Tensor, times: Tensor, viscosity: float) -> Tensor:
    """Let gas flow in the periodic unit square.

    Args:
        initial: density, pressure and velocity, ``(b, f, x, y)``, in units in which the square has side 1.
        times: ``(t)``, increasing.
        viscosity: eta and zeta, which are equal in all published files.

    Returns:
        The same fields at each of the times, ``(b, t, f, x, y)``, float64.
    """
    initial = initial.to(torch.float64)
    law = IdealGas()
    spacing = tuple(1 / num_cells for num_cells in initial.shape[2:])
    flow = FiniteVolume(law, spacing, (periodic, periodic))
    largest_step: Callable[[Tensor, Tensor], Tensor] = flow.largest_step
    scheme = heun
    if LONGITUDINAL * viscosity > LEAST_VISCOSITY * TYPICAL_SOUND * max(spacing):
        terms = _Viscosity(viscosity, spacing)
        scheme = terms.around
        largest_step = lambda state, time: flow.largest_step(state).clamp(max=terms.largest_step)  # noqa: E731
    states = integrate(law.conserved(initial), times, flow.rate, largest_step, scheme)
    return torch.stack([law.primitive(state) for state in states], dim=1)  # (b, t, f, x, y)


def _viscous_step(flow: FiniteVolume, viscosity: _Viscosity, state: Tensor, time: Tensor) -> Tensor:
    return flow.largest_step(state).clamp(max=viscosity.largest_step)


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
        waves. The contact wave between them selects the side that reaches the face. Density and velocity along the face
        are those of this side, so a contact or a shear layer at rest on a face stays sharp.
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


class _Viscosity:
    """The viscous terms by central differences, in half steps before and after the others (Strang splitting)."""

    def __init__(self, viscosity: float, spacing: tuple[float, ...]) -> None:
        self.viscosity, self.spacing = viscosity, spacing
        self.fastest_decay = 4 * LONGITUDINAL * viscosity * sum(1 / cell**2 for cell in spacing)
        # As many stages as let a gas of TYPICAL_SOUND keep its step. Were they chosen by the states, a trajectory's
        # numbers would depend on its neighbours in the batch.
        half_step = 0.4 / (TYPICAL_SOUND * sum(1 / cell for cell in spacing))
        self.num_stages = 3
        while legendre_limit(self.num_stages) < self.fastest_decay * half_step:
            self.num_stages += 2
        self.largest_step = 2 * legendre_limit(self.num_stages) / self.fastest_decay

    def around(self, rate: Rate, state: Tensor, step: Tensor) -> Tensor:
        """Take a step of Heun's scheme with ``rate`` between two half steps of viscosity."""
        state = runge_kutta_legendre(self.rate, state, step / 2, self.num_stages)
        return runge_kutta_legendre(self.rate, heun(rate, state, step), step / 2, self.num_stages)

    def rate(self, state: Tensor) -> Tensor:
        """Return the time derivative of a state ``(b, f, x, y)`` by viscosity alone, of the same shape."""
        total = torch.zeros_like(state)
        density, velocity = state[:, :1], state[:, 2:] / state[:, :1]
        for axis, spacing in enumerate(self.spacing):
            stress, face_velocity = self._stress(density, velocity, axis)  # both (b, component, x, y)
            dim = 2 + axis
            total[:, 2:] += (stress - stress.roll(1, dim)).div_(spacing)
            work = (stress * face_velocity).sum(1)
            total[:, 1] += (work - work.roll(1, dim - 1)).div_(spacing)
        return total

    def _stress(self, density: Tensor, velocity: Tensor, axis: int) -> tuple[Tensor, Tensor]:
        """Return the stress on the upper face of each cell along an axis, and the velocity there, ``(b, component, x, y)``."""
        dim = 2 + axis
        next_density, next_velocity = density.roll(-1, dim), velocity.roll(-1, dim)
        stress = (next_velocity - velocity).mul_((density + next_density).mul_(0.5 / self.spacing[axis]))
        along = torch.full((stress.shape[1], 1, 1), self.viscosity, dtype=stress.dtype)
        along[axis] *= LONGITUDINAL
        return stress.mul_(along), (velocity + next_velocity).mul_(0.5)


HIGHEST_WAVE = 4  # waves per axis
WINDOW_EDGE = 0.01  # half the width over which a window closes
LEAST_DENSITY = 0.05  # least density and pressure, over the mean: one draw in 300 is lower


def rand(seed: int, resolution: int, mach: float) -> Tensor:
    """Draw waves of density, pressure and velocity, in half of all cases inside a box in gas at rest.

    Args:
        seed: seed of the draw.
        resolution: cells along each axis.
        mach: mean speed, before the window, in units of the speed of sound.

    Returns:
        Density, pressure and velocity ``(f, x, y)``, float64.
    """
    generator = np.random.default_rng(seed)
    density, temperature = generator.uniform(0.1, 10, 2)
    contrast = torch.from_numpy(generator.uniform(0.01, 0.2, 2))  # one for density, one for pressure
    windowed = generator.random() < 0.5
    sides = generator.uniform((0.1, 0.1), (0.45, 0.45)), generator.uniform((0.55, 0.55), (0.9, 0.9))

    fields = plane_waves(generator, 4, resolution)  # (f, x, y)
    scalars = fields[:2] / fields[:2].abs().mean((1, 2), keepdim=True) * contrast[:, None, None]
    scalars = scalars.clamp(min=LEAST_DENSITY - 1)
    velocity = with_mean_speed(fields[2:], mach * math.sqrt(ADIABATIC_INDEX * temperature))
    if windowed:
        inside = window(sides, resolution)
        scalars, velocity = inside * scalars, inside * velocity
    mean = torch.tensor([density, density * temperature], dtype=torch.float64)
    return torch.cat((mean[:, None, None] * (1 + scalars), velocity))


def turbulence(seed: int, resolution: int, mach: float) -> Tensor:
    """Draw waves of velocity with a mean speed of 1 in gas of density 1 in which sound travels at ``1 / mach``.

    The published files subtract the expanding part of each wave as if its wave vector were one lower on both axes. That
    leaves 2 to 12 % of the kinetic energy in expansion and compression, as it does here.

    Returns:
        Density, pressure and velocity ``(f, x, y)``, float64.
    """
    velocity = plane_waves(np.random.default_rng(seed), 2, resolution)
    wave = torch.fft.fftfreq(resolution, 1 / resolution, dtype=torch.float64) - 1
    vector = torch.stack(torch.meshgrid(wave, wave, indexing="ij"))  # (f, x, y)
    spectrum = torch.fft.fft2(velocity)
    expansion = (vector * spectrum).sum(0) / vector.square().sum(0).clamp(min=1)
    velocity = torch.fft.ifft2(spectrum - vector * expansion).real
    uniform = torch.ones(2, resolution, resolution, dtype=torch.float64)
    uniform[1] = 1 / (ADIABATIC_INDEX * mach**2)
    return torch.cat((uniform, with_mean_speed(velocity, 1.0)))


def plane_waves(generator: np.random.Generator, num_fields: int, resolution: int) -> Tensor:
    """Sum waves ``sin(2 pi k.x + phase) / sqrt(k)`` that vary along both axes, with up to four waves along each.

    Returns:
        One sum for each field, ``(f, x, y)``, float64, evaluated at the centres of the cells.
    """
    numbers = [number for number in range(-HIGHEST_WAVE, HIGHEST_WAVE + 1) if number]
    phase = generator.uniform(0, 2 * math.pi, (num_fields, len(numbers), len(numbers)))
    size = np.hypot(*np.meshgrid(numbers, numbers, indexing="ij")) ** -0.5
    centres = (np.arange(resolution) + 0.5) / resolution
    waves = np.exp(2j * math.pi * np.outer(numbers, centres))  # (k, x)
    return torch.from_numpy(np.einsum("fkl,kx,ly->fxy", size * np.exp(1j * phase), waves, waves, optimize=True).imag)


def with_mean_speed(velocity: Tensor, speed: float) -> Tensor:
    """Scale a velocity ``(f, x, y)`` so that its mean magnitude is ``speed``."""
    return velocity * (speed / velocity.square().sum(0).sqrt().mean())


def window(sides: tuple[np.ndarray, np.ndarray], resolution: int) -> Tensor:
    """Return a mask ``(x, y)``, 1 inside a box and 0 outside; ``sides`` are its lower and its upper corner."""
    centres = (np.arange(resolution) + 0.5) / resolution
    lower, upper = (np.tanh((centres - side[:, None]) / WINDOW_EDGE) for side in sides)  # each (axis, cell)
    along_x, along_y = 0.5 * (lower - upper)
    return torch.from_numpy(np.outer(along_x, along_y))


FIELDS = ("density", "pressure", "Vx", "Vy")  # in the order of the solver


def gas_layout(initial: str) -> Hdf5Layout:
    """Return the layout of the file of an initial condition, ``Rand`` or ``Turb``."""
    return Hdf5Layout(
        files=lambda ensemble: {_file_name(initial, ensemble): ensemble.seeds},
        configs=partial(_configs, initial),
        begin=partial(_begin, initial),
    )


def solve_gas(draw: Callable[[int, int, float], Tensor], ensemble: Ensemble, seeds: Sequence[int]) -> list[Trajectory]:
    """Return the fields, each ``(t, x, y)``, of each seed; ``draw`` returns the initial state of a seed."""
    viscosity, mach = ensemble.settings["viscosity"], ensemble.settings["mach"]
    initial = torch.stack([draw(seed, ensemble.resolution, mach) for seed in seeds])  # (b, f, x, y)
    times = torch.arange(ensemble.num_frames, dtype=torch.float64) * FRAME_INTERVAL
    frames = navier_stokes(initial, times, viscosity)
    return [dict(zip(FIELDS, one.float().movedim(1, 0).numpy(), strict=True)) for one in frames]


solve_rand = partial(solve_gas, rand)
solve_turbulence = partial(solve_gas, turbulence)


def _file_name(initial: str, ensemble: Ensemble) -> str:
    mach, viscosity = ensemble.settings["mach"], ensemble.settings["viscosity"]
    # The release writes 0.1 and 1.0 but 1e-08, which is how Python writes floats.
    physics = f"M{float(mach)}_Eta{float(viscosity)}_Zeta{float(viscosity)}"
    return f"2D_CFD_{initial}_{physics}_periodic_{ensemble.resolution}_Train.hdf5"


def _configs(initial: str, ensemble: Ensemble, seeds: Sequence[int]) -> dict[str, str]:
    config = {
        "generator": "matey.simulate.compressible",
        "initial": initial,
        "first_seed": seeds[0],
        "num_trajectories": len(seeds),
        "resolution": ensemble.resolution,
        "num_frames": ensemble.num_frames,
        **ensemble.settings,
    }
    return {"config": yaml.safe_dump(config, sort_keys=False)}


def _begin(initial: str, file: h5py.File, ensemble: Ensemble, seeds: Sequence[int]) -> None:
    file.attrs["M"] = np.float64(ensemble.settings["mach"])
    file.attrs["eta"] = file.attrs["zeta"] = np.float64(ensemble.settings["viscosity"])
    file.attrs.update(_configs(initial, ensemble, seeds))
    shape = (len(seeds), ensemble.num_frames, ensemble.resolution, ensemble.resolution)  # (b, t, x, y)
    for field in FIELDS:
        file.create_dataset(field, shape, dtype="f4")
    centres = (np.arange(ensemble.resolution) + 0.5) / ensemble.resolution
    file.create_dataset("x-coordinate", data=centres, dtype="f4")
    file.create_dataset("y-coordinate", data=centres, dtype="f4")
    # The official files hold one time more than frames.
    times = np.arange(ensemble.num_frames + 1) * FRAME_INTERVAL
    file.create_dataset("t-coordinate", data=times, dtype="f4")


COMPRESSIBLE_RAND = System.published("compressible_rand", solve_rand, gas_layout("Rand"))
COMPRESSIBLE_TURB = System.published("compressible_turb", solve_turbulence, gas_layout("Turb"))
