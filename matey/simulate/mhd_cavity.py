"""The lid-driven cavity of an incompressible, conducting fluid in a magnetic field along the lid.

    v_t + v.grad v = -grad p + J x B + (1 / Re) lap v       div v = 0
    A_t + v.grad A = (1 / Re_m) lap A                       B = (A_y, -A_x),  J = -lap A

In units of the lid's speed, the side of the square, the density and mu_0 = 1. The equations, walls and initial state are
those of VERTEX-CFD's input ``full_induction_mhd/ldc_2d_bx_010.xml`` in the limits that its artificial compressibility
and divergence cleaning approximate: the vector potential ``A`` and a stream function make B and v free of divergence.
Walls conduct, so the field through them stays as it was, and the fluid sticks to them. The lid is not regularised.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from matey.simulate.catalogue import CAVITY_INTERVAL
from matey.simulate.square_diffusion import NoSlipDiffusion, ScalarDiffusion, SineTransform
from matey.simulate.time_stepping import check_steps

FRAME_INTERVAL = CAVITY_INTERVAL
HALF_WIDTH = 0.5  # the domain is [-0.5, 0.5]^2
COURANT = 0.8
FIELDS, REYNOLDS_NUMBERS = range(5, 31), range(50, 201)  # of the ensemble: applied field in hundredths, and Re_m

# ARS(2,2,2) of Ascher, Ruuth and Spiteri 1997, Appl. Numer. Math. 25, 151: second order, L-stable where implicit.
GAMMA = 1 - math.sqrt(0.5)
DELTA = 1 - 1 / (2 * GAMMA)


@dataclass(frozen=True)
class Cavity:
    """Parameters of a cavity.

    Attributes:
        field: applied magnetic field along x, in units of the field whose Alfven speed is the lid's speed.
        magnetic_reynolds: lid speed times side over magnetic diffusivity.
        reynolds: lid speed times side over viscosity.
    """

    field: float
    magnetic_reynolds: float
    reynolds: float = 100.0

    def __post_init__(self) -> None:
        """Raise ValueError for numbers that are out of range."""
        for what, value in (("magnetic Reynolds", self.magnetic_reynolds), ("Reynolds", self.reynolds)):
            if not 0 < value < math.inf:
                raise ValueError(f"The {what} number must be positive and finite, got {value}.")
        if not math.isfinite(self.field):
            raise ValueError(f"The applied field must be finite, got {self.field}.")


def solve(seeds: Sequence[int], resolution: int, num_frames: int, interval: float = FRAME_INTERVAL) -> Tensor:
    """Drive the cavity of each seed, one after the other: matrix products of a batch would round differently.

    Args:
        seeds: seeds of ``draw_cavity``.
        resolution: nodes along each axis, those on the walls included.
        num_frames: number of frames of each trajectory, the initial one included.
        interval: time between frames.

    Returns:
        Velocity and magnetic field, ``(b, t, y, x, f)``, f = (v_x, v_y, B_x, B_y), float32.
    """
    frames = torch.empty(len(seeds), num_frames, resolution, resolution, 4)  # (b, t, y, x, f)
    for trajectory, seed in zip(frames, seeds, strict=True):
        for index, frame in enumerate(drive(draw_cavity(seed), resolution, num_frames, interval)):
            trajectory[index] = frame
    return frames


def draw_cavity(seed: int) -> Cavity:
    """Choose the cavity of a seed: number 0 is VERTEX-CFD's, and the first 3926 differ from each other.

    The parameters of the published set are unknown. Files are named by their parameters, so seeds must not collide.
    Steps of nearly the golden ratio of the number of pairs, and prime to it, spread any few of them evenly.
    """
    count = len(REYNOLDS_NUMBERS)
    first = FIELDS.index(10) * count + REYNOLDS_NUMBERS.index(100)
    field, number = divmod((first + 2427 * seed) % (len(FIELDS) * count), count)
    return Cavity(FIELDS[field] / 100, float(REYNOLDS_NUMBERS[number]))


def drive(cavity: Cavity, resolution: int, num_frames: int, interval: float) -> Iterator[Tensor]:
    """Set the lid in motion over fluid at rest in a uniform field, and yield frames ``(y, x, f)``, float64.

    The lid moves in the first frame already, so that all frames have the same walls; VERTEX-CFD's lid is at rest there.
    The field stays free of divergence to round-off if ``numpy.gradient`` with ``edge_order=2`` takes the derivatives.

    Raises:
        FloatingPointError: the solution stopped being finite.
    """
    largest_step = COURANT / ((resolution - 1) * (1 + abs(cavity.field)))  # for the lid plus an Alfven wave along it
    num_steps = max(1, math.ceil(interval / largest_step - 1e-6))
    check_steps(num_steps, 0.0, interval)
    flow = CavityFlow(cavity, resolution, interval / num_steps)
    yield flow.frame()
    for index in range(1, num_frames):
        for _ in range(num_steps):
            flow.step()
        frame = flow.frame()
        if not frame.isfinite().all():
            raise FloatingPointError(f"The solution stopped being finite before t = {index * interval:g}.")
        yield frame


class CavityFlow:
    """Steps one cavity.

    Attributes:
        stream: stream function at all nodes, ``(y, x)``; v = (stream_y, -stream_x).
        induced: vector potential at all nodes without that of the applied field, ``(y, x)``. Both vanish on the walls,
            and so does the current, since ``A_t`` and ``v.grad A`` vanish there.
    """

    def __init__(self, cavity: Cavity, resolution: int, time_step: float) -> None:
        transform = SineTransform(resolution - 2)
        self.cavity, self.time_step, self.spacing = cavity, time_step, transform.spacing
        self.stream = torch.zeros(resolution, resolution, dtype=torch.float64)
        self.induced = torch.zeros_like(self.stream)
        self._viscous = NoSlipDiffusion(transform, GAMMA * time_step / cavity.reynolds)
        self._resistive = ScalarDiffusion(transform, GAMMA * time_step / cavity.magnetic_reynolds)

    def frame(self) -> Tensor:
        """Return velocity and magnetic field at all nodes, ``(y, x, f)``. In the corners, the fluid rests."""
        velocity_x, velocity_y = (_with_walls(part) for part in self._curl(self.stream))
        velocity_x[-1, 1:-1] = 1
        along_y, along_x = torch.gradient(self.induced, spacing=self.spacing, edge_order=2)
        return torch.stack((velocity_x, velocity_y, self.cavity.field + along_y, -along_x), dim=-1)

    def vorticity(self) -> Tensor:
        """Return the vorticity at all nodes ``(y, x)``, on the walls by Thom's formula, in the corners zero."""
        vorticity = _with_walls(self._minus_laplacian(self.stream))
        factor = -2 / self.spacing**2
        vorticity[0, 1:-1] = factor * self.stream[1, 1:-1]
        vorticity[-1, 1:-1] = factor * self.stream[-2, 1:-1] - 2 / self.spacing  # the lid's speed is 1
        vorticity[1:-1, 0] = factor * self.stream[1:-1, 1]
        vorticity[1:-1, -1] = factor * self.stream[1:-1, -2]
        return vorticity

    def step(self) -> None:
        """Advance by one step of second order, diffusion implicit and the rest explicit."""
        start = _inside(self.vorticity()), _inside(self.induced)
        first = self._explicit_rates()
        diffused = self._diffuse(*(field + GAMMA * self.time_step * a for field, a in zip(start, first, strict=True)))
        second = self._explicit_rates()
        self._diffuse(
            *(
                field + self.time_step * (DELTA * a + (1 - DELTA) * b) + (1 - GAMMA) / GAMMA * change
                for field, a, b, change in zip(start, first, second, diffused, strict=True)
            )
        )

    def _diffuse(self, vorticity: Tensor, induced: Tensor) -> tuple[Tensor, Tensor]:
        """Diffuse fields at the interior nodes for GAMMA of a step, and return their changes."""
        source = vorticity.clone()
        source[-1] -= GAMMA * self.time_step / self.cavity.reynolds * 2 / self.spacing**3  # the lid in Thom's formula
        self.stream = _with_walls(self._viscous.solve(source))
        self.induced = _with_walls(self._resistive.solve(induced))
        return self._minus_laplacian(self.stream) - vorticity, _inside(self.induced) - induced

    def _explicit_rates(self) -> tuple[Tensor, Tensor]:
        """Return the rates of change of vorticity and induced potential by flow and field, at the interior nodes."""
        velocity, (field_x, field_y) = self._curl(self.stream), self._curl(self.induced)
        field_x = field_x + self.cavity.field
        current = _with_walls(self._minus_laplacian(self.induced))
        spin = self._along((field_x, field_y), current) - self._along(velocity, self.vorticity())
        return spin, velocity[0] * field_y - velocity[1] * field_x

    def _along(self, vector: tuple[Tensor, Tensor], field: Tensor) -> Tensor:
        """Return ``vector . grad field`` at the interior nodes."""
        along_y, minus_along_x = self._curl(field)
        return vector[1] * along_y - vector[0] * minus_along_x

    def _curl(self, potential: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``(potential_y, -potential_x)`` at the interior nodes by central differences."""
        factor = 0.5 / self.spacing
        along_y, along_x = potential[2:, 1:-1] - potential[:-2, 1:-1], potential[1:-1, 2:] - potential[1:-1, :-2]
        return along_y * factor, along_x * -factor

    def _minus_laplacian(self, field: Tensor) -> Tensor:
        """Return minus the five-point Laplacian at the interior nodes."""
        neighbours = field[2:, 1:-1] + field[:-2, 1:-1] + field[1:-1, 2:] + field[1:-1, :-2]
        return (4 * _inside(field) - neighbours) / self.spacing**2


def _inside(field: Tensor) -> Tensor:
    return field[1:-1, 1:-1]


def _with_walls(field: Tensor) -> Tensor:
    """Add nodes on the walls, zero, around the interior ones."""
    return pad(field, (1, 1, 1, 1))
