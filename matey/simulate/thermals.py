"""Colliding thermals: a warm bubble of air rises into a cold one that falls, in the slice of ``stratified_flow.py``.

The stock set-up is miniWeather's ``DATA_SPEC_COLLISION``. How the bubbles of the trajectories differ in the paper's set
is not published; ``draw_bubbles`` is our choice.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from matey.simulate.stratified_flow import HEIGHT, THETA, WIDTH, Slice, StratifiedFlow, background_density

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


def solve(seeds: Sequence[int], resolution: int, num_frames: int) -> Tensor:
    """Let the bubbles of each seed collide, on ``resolution`` cells along x and half as many along z.

    Returns:
        Frames 20 s apart as miniWeather stores them: departures of density (kg/m3), winds u and w (m/s) and departure
        of potential temperature (K), ``(b, t, f, z, x)``, float64.

    Raises:
        ValueError: the resolution is odd.
        FloatingPointError: the solution stopped being finite.
    """
    if resolution % 2:
        raise ValueError(f"Thermals have half as many cells along z as along x, so {resolution} cells must be even.")
    times = torch.arange(num_frames, dtype=torch.float64) * FRAME_INTERVAL
    return collide([draw_bubbles(seed) for seed in seeds], Slice(resolution // 2, resolution), times)


def collide(bubbles: Sequence[Sequence[Bubble]], grid: Slice, times: Tensor) -> Tensor:
    """Release bubbles in air at rest and return the frames at the given times, as ``solve`` does.

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
