"""Shallow-water flow over a flat, wet bed, and PDEBench's radial dam break.

The equations are ``h_t + div(h v) = 0`` and ``(h v)_t + div(h v v + g h^2 / 2) = 0``. The set-up is that of
``pdebench/data_gen/src/sim_radial_dam_break.py``, whose solver is Clawpack's (Roe flux with entropy fix, MC limiter). Layout,
names and settings of the file are those of ``pdebench/data_gen/gen_radial_dam_break.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from matey.simulate.ensemble import Ensemble, System, Trajectory
from matey.simulate.finite_volume import FiniteVolume, extrapolation
from matey.simulate.layouts import SquareGroups
from matey.simulate.time_stepping import heun, integrate

GRAVITY = 1.0
HALF_WIDTH = 2.5  # the domain is [-2.5, 2.5]^2
DEPTH_INSIDE, DEPTH_OUTSIDE = 2.0, 1.0
FRAME_INTERVAL = 0.01


def dam_break(radius: Tensor, resolution: int, num_frames: int) -> Tensor:
    """Release a round column of water at rest in the middle of a shallower square basin without walls.

    Args:
        radius: ``(b)``, radius of the column, which is 2 deep; the water around it is 1 deep.
        resolution: cells along each axis.
        num_frames: number of frames, 0.01 apart, the first at rest.

    Returns:
        Depth of the water ``(b, t, x, y)``, float64.
    """
    radius = radius.to(torch.float64)
    spacing = 2 * HALF_WIDTH / resolution
    centre = (torch.arange(resolution, dtype=torch.float64, device=radius.device) + 0.5) * spacing - HALF_WIDTH
    distance = (centre[:, None].square() + centre.square()).sqrt()  # (x, y)
    depth = torch.where(distance <= radius[:, None, None], DEPTH_INSIDE, DEPTH_OUTSIDE).to(torch.float64)  # (b, x, y)
    at_rest = torch.stack((depth, torch.zeros_like(depth), torch.zeros_like(depth)), dim=1)  # (b, f, x, y)

    flow = FiniteVolume(ShallowWater(GRAVITY), (spacing, spacing), (extrapolation, extrapolation))
    times = torch.arange(num_frames, dtype=torch.float64) * FRAME_INTERVAL
    states = integrate(at_rest, times, flow.rate, flow.largest_step, heun)
    return torch.stack([state[:, 0].clone() for state in states], dim=1)  # (b, t, x, y)


def dam_radius(seed: int) -> float:
    """Draw the radius of PDEBench's trajectory of that seed."""
    return np.random.default_rng(seed).uniform(0.3, 0.7)


@dataclass(frozen=True)
class ShallowWater:
    """The law of depth and momentum ``(h, h v)`` on any number of axes; primitive fields are ``(h, v)``."""

    gravity: float

    def primitive(self, state: Tensor) -> Tensor:
        """Turn depth and momentum into depth and velocity, both ``(b, f, ...)``. The bed must be wet."""
        primitive = state.clone()
        primitive[:, 1:] /= state[:, :1]
        return primitive

    def speed(self, primitive: Tensor, axis: int) -> Tensor:
        """Return ``|v| + sqrt(g h)`` along a grid axis, ``(b, ...)``."""
        return primitive[:, 1 + axis].abs() + (self.gravity * primitive[:, 0]).sqrt()

    def numerical_flux(self, left: Tensor, right: Tensor, axis: int) -> Tensor:
        """Return the HLLE flux of depth and momentum, all ``(b, f, ...)``; Einfeldt 1988, SIAM J. Numer. Anal. 25, 294.

        HLL's single intermediate state between Roe's two gravity waves is Roe's: this is the Roe flux, with an entropy fix
        through the speeds of the two cells. Velocity along the face travels with the water that crosses it.
        """
        depth_left, depth_right = left[:, 0], right[:, 0]
        velocity_left, velocity_right = left[:, 1 + axis], right[:, 1 + axis]
        wave_left, wave_right = (self.gravity * depth_left).sqrt(), (self.gravity * depth_right).sqrt()
        roe_velocity = (wave_left * velocity_left + wave_right * velocity_right) / (wave_left + wave_right)
        roe_wave = (0.5 * self.gravity * (depth_left + depth_right)).sqrt()
        slowest = torch.minimum(velocity_left - wave_left, roe_velocity - roe_wave).clamp_(max=0)
        fastest = torch.maximum(velocity_right + wave_right, roe_velocity + roe_wave).clamp_(min=0)

        weight = fastest / (fastest - slowest)
        damping = weight * slowest
        momentum_left, momentum_right = depth_left * velocity_left, depth_right * velocity_right
        push_left = momentum_left * velocity_left + 0.5 * self.gravity * depth_left * depth_left
        push_right = momentum_right * velocity_right + 0.5 * self.gravity * depth_right * depth_right
        mass = momentum_right + weight * (momentum_left - momentum_right) + damping * (depth_right - depth_left)
        push = push_right + weight * (push_left - push_right) + damping * (momentum_right - momentum_left)

        flux = mass[:, None] * torch.where(mass[:, None] > 0, left, right)
        flux[:, 0], flux[:, 1 + axis] = mass, push
        return flux


def solve_dam_break(ensemble: Ensemble, seeds: Sequence[int]) -> list[Trajectory]:
    """Return depth as stored, ``(t, x, y, f)``, of each seed."""
    radius = torch.tensor([dam_radius(seed) for seed in seeds], dtype=torch.float64)
    depth = dam_break(radius, ensemble.resolution, ensemble.num_frames).float()  # (b, t, x, y)
    return [{"data": one.unsqueeze(-1).numpy()} for one in depth]


def _dam_break_config(seed: int, resolution: int, num_frames: int) -> dict[str, Any]:
    sim = {
        "T_end": round((num_frames - 1) * FRAME_INTERVAL, 9),
        "n_time_steps": num_frames - 1,
        "xdim": resolution,
        "ydim": resolution,
        "gravity": GRAVITY,
        "dam_radius": dam_radius(seed),
        "inner_height": DEPTH_INSIDE,
    }
    return {"name": "2d_rdb", "generator": "matey.simulate.shallow_water", "sim": sim}


LAYOUT = SquareGroups(HALF_WIDTH, FRAME_INTERVAL, _dam_break_config).layout("2D_rdb_NA_NA.h5")
SHALLOW_WATER = System.published("shallow_water", solve_dam_break, LAYOUT)
