"""Colliding thermals: a warm bubble of air rises into a cold one that falls, with the numerics and files of ORNL's miniWeather.

The stock set-up is miniWeather's ``DATA_SPEC_COLLISION``. How the bubbles of the trajectories differ in the paper's set
is not published; ``draw_bubbles`` is our choice. Dry, compressible, stratified air fills a vertical slice. States hold
departures from hydrostatic balance at constant potential temperature, so that air at rest stays at rest on any grid:

    rho'_t         + (rho u)_x       + (rho w)_z        = 0
    (rho u)_t      + (rho u u + p)_x + (rho u w)_z      = 0
    (rho w)_t      + (rho u w)_x     + (rho w w + p')_z = -g rho'
    (rho theta)'_t + (rho u theta)_x + (rho w theta)_z  = 0

Axes: ``f`` field, ``z``, ``x``, ``b`` trajectory. The batch comes last, so that neighbours along z and x are whole blocks
of memory and operations on them stay long. Sums with a factor (``alpha=``) and ``pow`` would be faster still, but
torch rounds them differently in the last few numbers of a row, and a trajectory would depend on its place in the batch.

Each trajectory has a classic netCDF file with the axes, names and types of miniWeather's ``output()``. MATEY's fine-tuning set
has two more variables, the background ``hy_dens`` and ``hy_theta`` along z, without which departures cannot become full fields;
these files have them too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from scipy.io import netcdf_file
from torch import Tensor

from matey.simulate.ensemble import Ensemble, System, Trajectory
from matey.simulate.layouts import SingleFiles

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


FRAME_INTERVAL = 20.0  # s
GAUSS_POINTS = (0.5 - math.sqrt(0.15), 0.5, 0.5 + math.sqrt(0.15))  # in units of a cell's width
GAUSS_WEIGHTS = (5 / 18, 8 / 18, 5 / 18)


@dataclass(frozen=True)
class Bubble:
    """A round bubble in which potential temperature departs from the background by ``cos^2``.

    Attributes:
        amplitude: departure in its middle (K).
        x: place of its middle along the slice (m).
        z: height of its middle (m).
        radius: distance from its middle at which the departure ends (m).
    """

    amplitude: float
    x: float
    z: float
    radius: float


def collide(bubbles: Sequence[Sequence[Bubble]], grid: Slice, times: Tensor) -> Tensor:
    """Release bubbles in air at rest and return the frames at the given times, ``(b, t, f, z, x)`` in the order of `VARIABLES`.

    Args:
        bubbles: the bubbles of each trajectory.
        grid: cells of the slice.
        times: ``(t)``, increasing from 0. Steps between two of them are equal, and at most miniWeather's.

    Raises:
        FloatingPointError: the solution stopped being finite.
    """
    flow = StratifiedFlow(grid, torch.stack([_at_rest(each, grid) for each in bubbles], dim=-1))
    frames = torch.empty(len(bubbles), len(times), 4, grid.num_z, grid.num_x, dtype=torch.float64)
    frames[:, 0] = _as_stored(flow.state, grid)
    for index, interval in enumerate(times.diff().tolist(), start=1):
        num_steps = max(1, math.ceil(interval / grid.largest_step - 1e-6))  # round-off in the times adds none
        for _ in range(num_steps):
            flow.step(interval / num_steps)
        frames[:, index] = _as_stored(flow.state, grid)
        if not frames[:, index].isfinite().all():
            begin, end = times[index - 1 : index + 1].tolist()
            raise FloatingPointError(f"The solution stopped being finite between t = {begin:g} and t = {end:g}.")
    return frames


def draw_bubbles(seed: int) -> tuple[Bubble, Bubble]:
    """Draw a warm bubble anywhere near the ground and a cold one aloft whose paths cross.

    Both are at most as strong and as large as the stock ones, so winds stay within miniWeather's largest speed.
    """
    random = np.random.default_rng(seed)
    radius_warm, radius_cold = random.uniform(1000, 2000, size=2).tolist()
    amplitude_warm, amplitude_cold = random.uniform(10, 20, size=2).tolist()
    x = random.uniform(0, WIDTH)
    offset = random.uniform(-0.5, 0.5) * (radius_warm + radius_cold)
    height_warm = random.uniform(radius_warm, 3000)
    depth_cold = random.uniform(radius_cold, 3000)
    warm = Bubble(amplitude_warm, x, height_warm, radius_warm)
    return warm, Bubble(-amplitude_cold, (x + offset) % WIDTH, HEIGHT - depth_cold, radius_cold)


def _at_rest(bubbles: Sequence[Bubble], grid: Slice) -> Tensor:
    """Return cell averages ``(f, z, x)`` of the departures in air at rest, by three Gauss points along each axis."""
    state = torch.zeros(4, grid.num_z, grid.num_x, dtype=torch.float64)
    height, width = grid.spacing
    for z_point, z_weight in zip(GAUSS_POINTS, GAUSS_WEIGHTS, strict=True):
        z = grid.z_centres() + (z_point - 0.5) * height
        for x_point, x_weight in zip(GAUSS_POINTS, GAUSS_WEIGHTS, strict=True):
            x = grid.x_centres() + (x_point - 0.5) * width
            warmth = sum(_warmth(bubble, z[:, None], x) for bubble in bubbles)
            state[3] += z_weight * x_weight * background_density(z)[:, None] * warmth
    return state


def _warmth(bubble: Bubble, z: Tensor, x: Tensor) -> Tensor:
    """Return the departure of potential temperature (K) that a bubble makes at places of the periodic slice."""
    along_x = torch.remainder(x - bubble.x + WIDTH / 2, WIDTH) - WIDTH / 2
    distance = (((z - bubble.z) / bubble.radius).square() + (along_x / bubble.radius).square()).sqrt()
    return bubble.amplitude * (0.5 * math.pi * distance.clamp(max=1)).cos().square()


def _as_stored(state: Tensor, grid: Slice) -> Tensor:
    """Turn a state ``(f, z, x, b)`` into a frame ``(b, f, z, x)``: departures of density and temperature, and winds."""
    departure, momentum_x, momentum_z, density_theta = state
    background = background_density(grid.z_centres())[:, None, None]
    density = background + departure
    warmth = (background * THETA + density_theta) / density - THETA
    return torch.stack((departure, momentum_x / density, momentum_z / density, warmth)).movedim(-1, 0)


VARIABLES = ("dens", "uwnd", "wwnd", "theta")  # in the order of the solver's fields


def solve_thermals(ensemble: Ensemble, seeds: Sequence[int]) -> list[Trajectory]:
    """Let the bubbles of each seed collide, on as many cells along x as the resolution says and half as many along z.

    Returns:
        Departures of density (kg/m3), winds u and w (m/s) and departures of potential temperature (K) as miniWeather stores
        them, each ``(t, z, x)``, float64, of each seed.

    Raises:
        ValueError: the resolution is odd.
        FloatingPointError: the solution stopped being finite.
    """
    num_x = ensemble.resolution
    if num_x % 2:
        raise ValueError(f"Thermals have half as many cells along z as along x, so {num_x} cells must be even.")
    times = torch.arange(ensemble.num_frames, dtype=torch.float64) * FRAME_INTERVAL
    frames = collide([draw_bubbles(seed) for seed in seeds], Slice(num_x // 2, num_x), times).numpy()  # (b, t, f, z, x)
    return [dict(zip(VARIABLES, one.swapaxes(0, 1), strict=True)) for one in frames]


def config(ensemble: Ensemble, seed: int) -> str:
    """Return the YAML text that records the contents of a file; equal settings give equal text."""
    warm, cold = (asdict(bubble) for bubble in draw_bubbles(seed))
    sim: dict[str, Any] = {"seed": seed, "nx": ensemble.resolution, "nz": ensemble.resolution // 2}
    sim |= {"num_frames": ensemble.num_frames, "out_freq": FRAME_INTERVAL}
    sim |= {"xlen": WIDTH, "zlen": HEIGHT, "warm_bubble": warm, "cold_bubble": cold}
    return yaml.safe_dump({"name": "thermals", "generator": "matey.simulate.thermals", "sim": sim}, sort_keys=False)


def write_trajectory(path: Path, ensemble: Ensemble, seed: int, trajectory: Trajectory) -> None:
    """Write one trajectory, fields ``(t, z, x)`` as solved."""
    num_z, num_x = ensemble.resolution // 2, ensemble.resolution
    with netcdf_file(path, "w", version=1) as file:
        file.config = config(ensemble, seed)
        for axis, length in (("t", None), ("x", num_x), ("z", num_z)):  # None: time may be appended to
            file.createDimension(axis, length)
        file.createVariable("t", "d", ("t",))[:] = np.arange(ensemble.num_frames) * FRAME_INTERVAL
        for name, values in trajectory.items():
            file.createVariable(name, "d", ("t", "z", "x"))[:] = values
        density = background_density(Slice(num_z, num_x).z_centres())
        for name, background in (("hy_dens", density), ("hy_theta", torch.full_like(density, THETA))):
            file.createVariable(name, "d", ("z",))[:] = background.numpy()


def read_config(path: Path) -> str | None:
    """Return the result of ``config`` as kept in a file, or None if another program wrote it."""
    with netcdf_file(path, mmap=False) as file:
        return getattr(file, "config", b"").decode() or None


LAYOUT = SingleFiles(lambda seed: f"thermals_{seed:04d}.nc", config, read_config, write_trajectory)

COLLIDING_THERMALS = System.published("colliding_thermals", solve_thermals, LAYOUT)
