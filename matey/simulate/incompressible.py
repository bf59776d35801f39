"""Incompressible flow of a fluid in a closed box, stirred by a static force that acts on a tracer.

    v_t + div(v v) + grad p = nu lap v + c f,     div v = 0,     v = 0 on the walls
    c_t + div(c v) = 0,                           no gradient of c into the walls

Velocity and force live on the faces between cells and the tracer in the cells (Harlow and Welch 1965, Phys. Fluids 8,
2182), so that a projection makes the flow divergence-free to round-off. The Laplacian between walls without flux is diagonal
in the cosine transform (DCT-II). The random initial state and force are smooth noise, as phiflow's ``Noise`` draws it.

Layout and names of PDEBench's files are those of ``pdebench/data_gen/src/data_io.py``, and fields those of
``sim_ns_incomp_2d.py``. Three things differ: a file is named by the seed of its first trajectory, since each trajectory has its
own seed; frame 0 is divergence-free already; and data are not compressed, since lzf makes noise no smaller.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import h5py
import numpy as np
import torch
import yaml
from scipy.fft import dctn, idctn
from torch import Tensor

from matey.simulate.ensemble import Ensemble, System, Trajectory
from matey.simulate.finite_volume import NUM_GHOSTS, extrapolation, limited_half_slope
from matey.simulate.layouts import Hdf5Layout
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


def flow_in_box(initial: Flow, force: Tensor, times: Tensor, viscosity: float) -> Flow:
    """Let a fluid flow in the unit square.

    Args:
        initial: velocity ``(b, 2, x, y)`` and tracer ``(b, x, y)`` at ``times[0]``; need not be divergence-free.
        force: ``(..., 2, x, y)``, force on the faces, placed like the velocity.
        times: ``(t)``, increasing.
        viscosity: kinematic viscosity nu.

    Returns:
        Velocity ``(b, t, 2, x, y)`` and tracer ``(b, t, x, y)``, float64; divergence-free from the first frame on.
    """
    resolution = initial.tracer.shape[-1]
    box = _Box(force.to(torch.float64), viscosity, 1 / resolution, _eigenvalues(resolution))
    velocity = box.project(initial.velocity.to(torch.float64))
    state = torch.cat((velocity, initial.tracer.to(torch.float64).unsqueeze(1)), dim=1)  # (b, f, x, y)
    frames = torch.stack(list(integrate(state, times, box.rate, box.largest_step, heun)), dim=1)  # (b, t, f, x, y)
    return Flow(frames[:, :, :2], frames[:, :, 2])


@dataclass(frozen=True)
class _Box:
    """Rate and step of states ``(b, f, x, y)``: velocity on the faces, then the tracer."""

    force: Tensor
    viscosity: float
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
        in_cosines = dctn(divergence.numpy(), axes=(-2, -1)) / self.eigenvalues.numpy()
        pressure = torch.from_numpy(idctn(in_cosines, axes=(-2, -1)))
        for face, dim in _by_axis(velocity):
            face.narrow(dim, 0, face.shape[dim] - 1).sub_(pressure.diff(dim=dim) / self.spacing)
        return velocity

    def _acceleration(self, velocity: Tensor, tracer: Tensor) -> Tensor:
        """Return the acceleration without pressure, ``(b, 2, x, y)``, by central differences; values on walls are ignored."""
        total = torch.empty_like(velocity)
        for (face, dim), (across, other) in zip(_by_axis(velocity), reversed(_by_axis(velocity)), strict=True):
            in_cells = 0.5 * (face + _lower(face, dim))
            along = _upper(in_cells.square(), dim) - in_cells.square()
            # Ghost cells beyond the walls: their mean with the neighbours is the wall's speed, zero.
            upper = torch.cat((face.narrow(other, 1, face.shape[other] - 1), -face.narrow(other, -1, 1)), other)
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


SCALE, SMOOTHNESS = 0.4, 1.0  # for velocity and tracer
FORCE_SCALE, FORCE_SMOOTHNESS = 0.15, 3.0
LOWEST_WAVE = 0.1  # squared, in waves per scale: longer waves are left out


def noise_in_box(seed: int, resolution: int) -> tuple[Flow, Tensor]:
    """Draw a flow and the force on it: each component and the tracer have mean 0 and standard deviation 1.

    Returns:
        The flow, not yet divergence-free, and the force on the faces, ``(2, x, y)``; nothing crosses the walls.
    """
    generator = np.random.default_rng(seed)
    tracer, *velocity = (noise(generator, resolution, SCALE, SMOOTHNESS) for _ in range(3))
    force = [noise(generator, resolution, FORCE_SCALE, FORCE_SMOOTHNESS) for _ in range(2)]
    return Flow(_inside(velocity), tracer), _inside(force)


def noise(generator: np.random.Generator, resolution: int, scale: float, smoothness: float) -> Tensor:
    """Draw periodic noise in the unit square with amplitudes that fall as ``k^(-2 smoothness)``.

    Args:
        generator: the generator of random numbers.
        resolution: cells along each axis.
        scale: length of the longest waves, roughly.
        smoothness: rate at which short waves get weaker.

    Returns:
        ``(x, y)``, float64, of mean 0 and standard deviation 1.
    """
    wave = np.fft.fftfreq(resolution, 1 / resolution) * scale
    squared = wave[:, None] ** 2 + wave**2
    heard = squared > LOWEST_WAVE
    weight = np.where(heard, np.where(heard, squared, 1.0) ** -smoothness, 0.0)
    real, imaginary = generator.standard_normal((2, resolution, resolution))
    field = np.fft.ifft2(weight * (real + 1j * imaginary)).real
    return torch.from_numpy(field / field.std())


def _inside(components: list[Tensor]) -> Tensor:
    """Return components on the faces, ``(2, x, y)``, with nothing on the walls."""
    faces = torch.stack(components)
    faces[0, -1], faces[1, :, -1] = 0.0, 0.0
    return faces


FRAME_INTERVAL = 0.005
TRAJECTORIES_PER_FILE = 4


def solve_box(ensemble: Ensemble, seeds: Sequence[int]) -> list[Trajectory]:
    """Return velocity ``(t, x, y, 2)``, tracer ``(t, x, y, 1)`` and force ``(x, y, 2)`` in the cells, of each seed."""
    flows, forces = zip(*(noise_in_box(seed, ensemble.resolution) for seed in seeds), strict=True)
    initial = Flow(torch.stack([flow.velocity for flow in flows]), torch.stack([flow.tracer for flow in flows]))
    force = torch.stack(forces)  # (b, 2, x, y)
    times = torch.arange(ensemble.num_frames, dtype=torch.float64) * FRAME_INTERVAL
    flow = flow_in_box(initial, force, times, ensemble.settings["viscosity"])
    stored = {
        "velocity": flow.velocity_in_cells().movedim(2, -1),
        "particles": flow.tracer.unsqueeze(-1),
        "force": Flow(force, flow.tracer).velocity_in_cells().movedim(1, -1),
    }
    return [{name: field[one].float().numpy() for name, field in stored.items()} for one in range(len(seeds))]


def _files(ensemble: Ensemble) -> dict[str, Sequence[int]]:
    starts = ensemble.seeds[::TRAJECTORIES_PER_FILE]
    return {
        f"{_name(ensemble)}-{start}.h5": range(start, min(start + TRAJECTORIES_PER_FILE, ensemble.seeds.stop))
        for start in starts
    }


def _name(ensemble: Ensemble) -> str:
    return f"ns_incom_inhom_2d_{ensemble.resolution}"


def _configs(ensemble: Ensemble, seeds: Sequence[int]) -> dict[str, str]:
    config = {
        "sim_name": _name(ensemble),
        "generator": "matey.simulate.incompressible",
        "domain_size": [1, 1],
        "grid_size": [ensemble.resolution, ensemble.resolution],
        "particle_extrapolation": "BOUNDARY",
        "velocity_extrapolation": "ZERO",
        "NU": ensemble.settings["viscosity"],
        "force_extrapolation": "ZERO",
        "seed": seeds[0],
        "smoothness": SMOOTHNESS,
        "scale": SCALE,
        "force_smoothness": FORCE_SMOOTHNESS,
        "force_scale": FORCE_SCALE,
        "n_steps": ensemble.num_frames,
        "DT": FRAME_INTERVAL,
        "frame_int": 1,
        "n_batch": len(seeds),
    }
    return {"config": yaml.safe_dump(config, sort_keys=False)}


def _begin(file: h5py.File, ensemble: Ensemble, seeds: Sequence[int]) -> None:
    file.attrs.update(_configs(ensemble, seeds))
    file.attrs["latestIndex"] = np.int64(ensemble.num_frames - 1)
    cells = (ensemble.resolution, ensemble.resolution)
    per_frame = (len(seeds), ensemble.num_frames)
    file.create_dataset("velocity", (*per_frame, *cells, 2), dtype="f4", chunks=(1, 1, *cells, 2))
    file.create_dataset("particles", (*per_frame, *cells, 1), dtype="f4", chunks=(1, 1, *cells, 1))
    file.create_dataset("force", (len(seeds), *cells, 2), dtype="f4")
    times = np.arange(ensemble.num_frames) * FRAME_INTERVAL
    file.create_dataset("t", data=np.tile(times, (len(seeds), 1)), dtype="f4")


LAYOUT = Hdf5Layout(_files, _configs, _begin)

INCOMPRESSIBLE = System.published("incompressible", solve_box, LAYOUT)
